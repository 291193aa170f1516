"""Read the built HTML and say what a reader or a screen reader would stumble on.

Checked: links inside the book, alt text, formulas without a network, owner. Links to other sites
are ``make linkcheck``'s.

    python -m tools.site _build/html
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tools.owner import repository


class Page(HTMLParser):
    """One page: its anchors, its links, and what is wrong with it by itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.faults: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take what matters from one tag."""
        attributes = dict(attrs)
        self.anchors.update(v for k in ("id", "name") if (v := attributes.get(k)))
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"] or "")
        if tag == "img" and not (attributes.get("alt") or "").strip():
            self.faults.append(f"an image without alt text: {(attributes.get('src') or '')[:60]}")
        source = attributes.get("src") or ""
        if tag in ("script", "img") and urlsplit(source).scheme in ("http", "https"):
            self.faults.append(f"needs the network: {source}")


def faults(site: Path) -> list[str]:
    """Return one sentence for each fault of the site."""
    owner, name = repository()
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in sorted(pages.items()):
        if "_static" in path.parts:
            continue
        where = path.relative_to(site.resolve())
        found += [f"{where}: {fault}" for fault in page.faults]
        for link in page.links:
            parts = urlsplit(link)
            if f"/{name}" in link and "github" in parts.netloc and f"/{owner}/" not in link:
                found.append(f"{where}: links to another owner: {link}")
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                found.append(f"{where}: leads nowhere: {link}")
            elif parts.fragment and target in pages:
                anchors = pages[target].anchors
                if unquote(parts.fragment) not in anchors and parts.fragment not in anchors:
                    found.append(f"{where}: leads to no such place: {link}")
    return found


def main() -> None:
    site = Path(sys.argv[1])
    if not (site / "index.html").exists():
        sys.exit(f"{site} holds no book: run `make book`")
    found = faults(site)
    if found:
        sys.exit("\n".join([*found, f"{len(found)} faults in {site}"]))


if __name__ == "__main__":
    main()
