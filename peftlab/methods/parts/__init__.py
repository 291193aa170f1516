"""What several methods are made of: bottlenecks, activations, gates, and choices of linear maps."""
