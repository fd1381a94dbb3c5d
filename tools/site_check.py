"""What must hold for a built site: every internal link leads somewhere, nothing is fetched from a network, every page
says something."""
import functools
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {
    ("img", "src"), ("script", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("video", "src"),
    ("audio", "src"), ("object", "data"),
}
# Tags that tell nothing here, nearly all of a page with coloured code: reading each would take most of the time.
DULL = re.compile(
    r'<(?:a|span|li|ul|ol|div|pre|code|em|strong|table|thead|tbody|tr|th|td|dl|dt|dd)(?: class="[^"<>]*")?>'
    r"|</(?:a|span|li|ul|ol|div|pre|code|em|strong|table|thead|tbody|tr|th|td|dl|dt|dd|label|h1|h2|h3)>"
)
TREE = re.compile(r'<div class="sidebar-tree">.*?</div>', re.S)  # the side bar: the same links on all pages of a folder
MADE = {"genindex.html", "search.html", "py-modindex.html"}  # pages without text of their own


class PageFacts(HTMLParser):
    "Links, anchors, loaded files and words of prose of one page."

    def __init__(self, text: str):
        super().__init__()
        self.links, self.anchors, self.loaded, self.prose, self.titles = [], set(), [], "", 0
        self._paragraph = self._article = 0
        self.feed(DULL.sub("", text))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[k] for k in ("id", "name") if given.get(k)}
        if tag == "a" and given.get("href") is not None:
            self.links.append(given["href"])
        self.loaded += [
            given[name] for element, name in LOADED if tag == element and given.get(name)
            and given.get("rel") not in ("index", "search", "next", "prev", "canonical")
        ]
        self._article += tag == "article"
        self._paragraph += tag == "p"
        self.titles += tag == "h1"

    def handle_endtag(self, tag):
        self._article -= tag == "article"
        self._paragraph -= tag == "p" and self._paragraph > 0

    def handle_data(self, data):
        if self._article and self._paragraph:
            self.prose += data


def check_site(folder: Path) -> list:  # one line per problem, empty when all is well
    "Broken links, files from a network, pages without prose."
    folder = Path(folder).resolve()
    pages, problems, seen = {}, [], set()
    for path in sorted(folder.rglob("*.html")):
        if path.relative_to(folder).parts[0] == "reports":  # copies of whole reports, which have tests of their own
            continue
        text = path.read_text(encoding="utf-8")
        pages[path] = PageFacts(TREE.sub("", text) if path.parent in seen else text)
        seen.add(path.parent)

    @functools.cache
    def there(folder, target):  # the side bar of every page asks for every other page
        file = (folder / unquote(target)).resolve()
        return file if file.is_file() else None

    for path, facts in pages.items():
        name = path.relative_to(folder)
        for target in facts.loaded:
            if re.match(r"(https?:)?//", target):
                problems.append(f"{name}: loads {target} from a network")
        for target in dict.fromkeys([*facts.links, *facts.loaded]):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = there(path.parent, parts.path) if parts.path else path
            if file is None:
                problems.append(f"{name}: {target} does not exist")
            elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].anchors:
                problems.append(f"{name}: {target} names a place that does not exist")
        if str(name) not in MADE and len(facts.prose.split()) < 12:
            problems.append(f"{name}: a page without prose")
        if facts.titles != 1 and str(name) not in MADE:
            problems.append(f"{name}: {facts.titles} titles")
    return problems
