"""The ledger: what papers claim, and what the records say about it."""

from peftlab.claims.evidence import Evidence
from peftlab.claims.hinges import Swing, swing
from peftlab.claims.ledger import Claim, Hinge, Ledger, book_ledger
from peftlab.claims.region import Estimate, Region
from peftlab.claims.tables import cell_table, claim_table, hinge_table, text
from peftlab.claims.verdicts import Finding, Verdict, finding, findings

__all__ = [
    "Claim",
    "Estimate",
    "Evidence",
    "Finding",
    "Hinge",
    "Ledger",
    "Region",
    "Swing",
    "Verdict",
    "book_ledger",
    "cell_table",
    "claim_table",
    "finding",
    "findings",
    "hinge_table",
    "swing",
    "text",
]
