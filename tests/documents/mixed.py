"""A folder of 64 files: sixteen kinds in four scripts, and what must be read of each."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from html import escape
from pathlib import Path

SCRIPTS = {
    "latin": [
        "Der Schlüssel hängt im Archiv — 10\u00a0km von „Łódź“ entfernt.",
        "naïve cafe\u0301 fine",
    ],
    "cjk": [
        "東京\u3000大阪。鍵は「保管庫」に掛かっています！",
        "請在星期一購買咖啡豆、牛奶；謝謝。",
    ],
    "persian": ["کلیدها را در بایگانی می\u200cتوانید ببینید؟ بله.", "«خانه‌های» قدیمی ۱۲۳"],
    "devanagari": ["चाबियाँ अभिलेखागार में टँगी हैं। क्षत्रिय", "श्री\u200dमान्, कृपया १० बजे आएँ।"],
}
"""Two paragraphs each, with what splitters and converters like to alter."""

TABBED = "Name\tPort  two spaces"
CODE = "if ok:\n    go()\n\tif 1 < 2 & x_y:\n\n        *stop* # 東京\u3000\u00a0x"


def make_folder(folder: Path) -> dict[str, list[str]]:
    """Write the files; returns by the path of each the texts that must be read of it."""
    wanted: dict[str, list[str]] = {}
    for script, paragraphs in SCRIPTS.items():
        for kind, make in KINDS.items():
            name = f"{script}/{kind}"
            texts = [f"{paragraph} {script} {kind}" for paragraph in paragraphs]
            if (script, kind) == ("persian", "a.pdf"):
                texts = paragraphs[:1] * 2  # a PDF does not say in which order directions mix
            data, more = make(*texts)
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            wanted[name] = [*texts, *more]
    return wanted


Made = tuple[bytes, list[str]]


def markdown(a: str, b: str) -> Made:
    text = f"---\ntitle: T\n---\nOne\n===\n\n{a}\n\n```python\n{CODE}\n```\n\n## Two\n\n- {b}\n"
    return text.encode("utf-8-sig"), [CODE]


def markdown_table(a: str, b: str) -> Made:
    rows = [f"| {a} {i} | {b} |" for i in range(40)]
    return "\r\n".join(["# Rows", "", "| A | B |", "|---|---|", *rows]).encode(), rows


def plain(a: str, b: str) -> Made:
    return f"{a}\n\n{b}\r\nName\tPort\n\n\n{CODE}\n".encode(), ["Name\tPort", CODE]


def wide(a: str, b: str) -> Made:
    return f"{a}\n\n{b}\n\n0123456789 0123456789".encode("utf-16-le"), []  # no mark


def wider(a: str, b: str) -> Made:
    return f"{a}\r{b}\r".encode("utf-32"), []


def source(a: str, b: str) -> Made:
    return f'"""{a}"""\n\n# {b}\n{CODE}\n'.encode(), [CODE]


def html(a: str, b: str) -> Made:
    text = (
        f"<!doctype html><meta charset=utf-8><title>T</title><h1>One</h1><p>{escape(a)}<p>"
        f"<b>{escape(b[0])}</b>{escape(b[1:])}<nav>Home</nav>Text<pre>\n{escape(CODE)}</pre>"
        "<script>no()</script><ul><li>x<li>y</ul>"
    )
    return text.encode(), [CODE, "Home\nText", "x\ny"]


def docx(a: str, b: str) -> Made:
    """Word's own minimum."""

    def paragraph(text: str, style: str = "") -> str:
        styled = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
        words = [f'<w:t xml:space="preserve">{escape(part)}</w:t>' for part in text.split("\t")]
        return f"<w:p>{styled}<w:r>{'<w:tab/>'.join(words)}</w:r></w:p>"

    def row(*cells: str) -> str:
        return f"<w:tr>{''.join(f'<w:tc>{paragraph(cell)}</w:tc>' for cell in cells)}</w:tr>"

    namespace = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    package = "http://schemas.openxmlformats.org/package/2006"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    kind = "application/vnd.openxmlformats-"
    links = f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" Type="{office}/'
    table = f"<w:tbl>{row('Service', 'Port')}{row(b, '8000')}</w:tbl>"
    body = f"{paragraph('One', 'H1')}{paragraph(a)}{paragraph(TABBED)}{table}"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
        f'ContentType="{kind}package.relationships+xml"/><Override PartName="/word/document.xml" '
        f'ContentType="{kind}officedocument.wordprocessingml.document.main+xml"/></Types>',
        "_rels/.rels": f'{links}officeDocument" Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": f'{links}styles" Target="styles.xml"/></Relationships>',
        "word/styles.xml": f'<w:styles {namespace}><w:style w:type="paragraph" w:styleId="H1">'
        '<w:name w:val="heading 1"/></w:style></w:styles>',
        "word/document.xml": f"<w:document {namespace}><w:body>{body}</w:body></w:document>",
    }
    return pack(parts), [TABBED, f"Service\tPort\n\n{b}\t8000"]


def xlsx(a: str, b: str) -> Made:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (["Name", "Code"], [a, "00123"], [b, 7], ["sum", "=1+1"]):
        sheet.append(row)
    data = io.BytesIO()
    book.save(data)
    return data.getvalue(), [f"{a}\t00123", f"{b}\t7", "sum\t=1+1"]


def pptx(a: str, b: str) -> Made:
    import pptx as library

    show = library.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text = "One"
    slide.placeholders[1].text = a
    slide.notes_slide.notes_text_frame.text = b
    data = io.BytesIO()
    show.save(data)
    return data.getvalue(), []


def comma(a: str, b: str) -> Made:
    data = io.StringIO()
    csv.writer(data).writerows([["name", "note"], *([f"{a} {i}", f"{b}\n{i}"] for i in range(30))])
    lines = data.getvalue().replace("\r\n", "\n").removeprefix("name,note\n").split("\n", 2)
    return data.getvalue().encode(), ["\n".join(lines[:2])]


def json_records(a: str, b: str) -> Made:
    return json.dumps([{"text": a, "n": 1}, {"text": b}]).encode(), []


def json_document(a: str, b: str) -> Made:
    return json.dumps({"first": [a, 1.50], "second": {"deep": b}}).encode(), []


def json_lines(a: str, b: str) -> Made:
    text = "\n".join(json.dumps({"text": each, "n": i}) for i, each in enumerate([a, b, CODE + a]))
    return text.encode(), [CODE + a]


def epub(a: str, b: str) -> Made:
    def page(text: str) -> str:
        head = '<?xml version="1.0" encoding="utf-8"?><html><head><title>T</title></head>'
        return f"{head}<body><h1>One</h1><p>{escape(text)}</p></body></html>"

    kind = 'media-type="application/xhtml+xml"'
    parts = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container xmlns="urn:x"><rootfiles><rootfile '
        'full-path="OEBPS/a.opf"/></rootfiles></container>',
        "OEBPS/a.opf": '<package xmlns="urn:y"><metadata xmlns:dc="urn:z"><dc:title>Book</dc:title>'
        f'</metadata><manifest><item id="2" href="b%20.xhtml" {kind}/><item id="1" href="a.xhtml" '
        f'{kind}/></manifest><spine><itemref idref="1"/><itemref idref="2"/></spine></package>',
        "OEBPS/a.xhtml": page(a),
        "OEBPS/b .xhtml": page(b),
    }
    return pack(parts), []


def mail(a: str, b: str) -> Made:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "Keys", "a@example.org", "b@example.org"
    message.set_content(f"{a}\n\n{b}\n")
    message.add_alternative(f"<p>{escape(a)}</p>", subtype="html")
    attached = f"attached {a}"
    message.add_attachment(attached.encode(), maintype="text", subtype="plain", filename="x.txt")
    return bytes(message), ["Subject: Keys\nFrom: a@example.org", attached]


def pack(files: dict[str, str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as target:
        for name, text in files.items():
            target.writestr(name, text)
    return data.getvalue()


def pdf(pages: list[str], picture: str = "", title: str = "") -> bytes:
    """A PDF of one line a page, in any script: each character is a glyph that says what it is.

    Args:
        pages: The lines.
        picture: An object that every page shows.
        title: What its metadata call it.
    """
    characters = sorted({character for page in pages for character in page})
    code = {character: f"{i:04x}" for i, character in enumerate(characters, 1)}
    maps = "".join(f"<{code[c]}> <{c.encode('utf-16-be').hex()}>\n" for c in characters)
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n"
        "1 begincodespacerange <0000> <ffff> endcodespacerange\n"
        f"{len(characters)} beginbfchar\n{maps}endbfchar endcmap end end"
    )
    kids = " ".join(f"{9 + 2 * i} 0 R" for i in range(len(pages)))
    named = title.replace("(", "\\(").replace(")", "\\)")
    font = "/Type /Font /BaseFont /F"
    system = "/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >>"
    shape = "/FontBBox [0 0 1000 1000] /ItalicAngle 0 /Ascent 800 /Descent -200 /CapHeight 700"
    composite = "/Encoding /Identity-H /DescendantFonts [4 0 R] /ToUnicode 6 0 R"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        f"<< {font} /Subtype /Type0 {composite} >>",
        f"<< {font} /Subtype /CIDFontType2 {system} /FontDescriptor 5 0 R /DW 500 >>",
        f"<< /Type /FontDescriptor /FontName /F /Flags 4 {shape} /StemV 80 >>",
        f"<< /Length {len(cmap)} >>\nstream\n{cmap}\nendstream",
        picture or "null",
        f"<< /Title ({named}) >>" if title else "null",
    ]
    for i, text in enumerate(pages):
        shown = "".join(code[character] for character in text)
        stream = f"BT /F1 12 Tf 72 720 Td <{shown}> Tj ET" if text else ""
        fonts = "/Font << /F1 3 0 R >>"
        if picture:
            stream += " q 9 0 0 9 0 0 cm /P Do Q"
            fonts += " /XObject << /P 7 0 R >>"
        resources = f"/Resources << {fonts} >> /MediaBox [0 0 612 792]"
        objects += [
            f"<< /Type /Page /Parent 2 0 R /Contents {10 + 2 * i} 0 R {resources} >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode()
    lines = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    table = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{lines}"
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info 8 0 R >>"
    return data + f"{table}{trailer}\nstartxref\n{len(data)}\n%%EOF\n".encode()


def pages(a: str, b: str) -> Made:
    return pdf([visual(a), visual(b)]), []


def visual(text: str) -> str:
    """As a page has it, from left to right."""
    if not re.search("[\u0600-\u06ff]", text):
        return text
    return text[::-1]


KINDS: dict[str, Callable[[str, str], Made]] = {
    "a.md": markdown,
    "table.markdown": markdown_table,
    "a.txt": plain,
    "utf16.txt": wide,
    "utf32.rst": wider,
    "a.py": source,
    "a.html": html,
    "a.pdf": pages,
    "a.docx": docx,
    "a.xlsx": xlsx,
    "a.pptx": pptx,
    "a.csv": comma,
    "records.json": json_records,
    "a.jsonl": json_lines,
    "a.epub": epub,
    "a.eml": mail,
}
