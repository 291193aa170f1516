"""Methods against each other: selection of rates, statistics, noise, targets, costs, cards."""
