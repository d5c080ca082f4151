"""What is read from each kind of file, and what is said of files that cannot be read."""

import base64
import codecs
import hashlib
import io
import json
import re
import zipfile
import zlib
from email.message import EmailMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import pytest

from qwen3_retrieval.documents.corpus import find_corpus, why_skipped
from qwen3_retrieval.documents.cutting import Cutter, tokenizer_of
from qwen3_retrieval.documents.encoding import decode
from qwen3_retrieval.documents.html import html_section
from qwen3_retrieval.documents.reading import read_sections
from qwen3_retrieval.documents.records import read_table
from qwen3_retrieval.documents.text import MAX_METADATA, Section, UnreadableError
from tests.conftest import naming
from tests.documents import mixed
from tests.documents.mixed import SCRIPTS, pdf


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def sections(path: Path, text_field: str = "text", encoding: str | None = None):
    """The sections of one file, what was reported, and the digest of what was read."""
    (file,) = find_corpus(path).files
    bad: list[str] = []
    hasher = hashlib.sha256()

    def report(reason: str, detail: str) -> None:
        bad.append(f"{reason}: {detail}")

    found = list(read_sections(file, hasher, report, text_field=text_field, encoding=encoding))
    assert hasher.hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
    return found, bad


# Files


def test_a_corpus_is_what_can_be_read_in_a_folder(tmp_path):
    names = ("b.md", "a/c.TXT", "a/d.pdf", "photo.png", ".hidden.md", ".git/x.md", "z.markdown")
    for name in names:
        write(tmp_path / "docs" / name, "x")
    found = find_corpus(tmp_path / "docs")
    assert [f.source for f in found.files] == ["a/c.TXT", "a/d.pdf", "b.md", "z.markdown"]
    assert (found.name, found.skipped, found.whole) == ("docs", [Path("photo.png")], True)
    one = find_corpus(tmp_path / "docs" / "b.md")
    assert ([f.source for f in one.files], one.name, one.whole) == (["b.md"], "docs", False)
    some = find_corpus(tmp_path / "docs", exclude=("a/*", "*.png"))
    assert ([f.source for f in some.files], some.skipped) == (["b.md", "z.markdown"], [])


def test_links_that_lead_elsewhere_are_named(tmp_path):
    docs = tmp_path / "docs"
    write(docs / "a.md", "x")
    write(tmp_path / "other" / "b.md", "x")
    (docs / "again").symlink_to(docs)
    (docs / "other").symlink_to(tmp_path / "other")
    (docs / "b.md").symlink_to(tmp_path / "other" / "b.md")
    (docs / "gone.md").symlink_to("nowhere")
    found = find_corpus(docs)
    assert ([f.source for f in found.files], found.whole) == (["a.md", "b.md"], False)
    folder = str(tmp_path / "other")
    assert found.unreadable == [
        "gone.md: a link to nothing",
        f"other: a link to a folder, which is not followed: read {folder!r} itself",
    ]
    assert find_corpus(docs, exclude=("gone*", "other")).whole


def test_a_corpus_with_nothing_to_read_is_refused(tmp_path):
    write(tmp_path / "docs" / "photo.png", "x")
    with pytest.raises(ValueError, match=naming(".md", ".html", str(tmp_path / "docs"))):
        find_corpus(tmp_path / "docs")
    with pytest.raises(ValueError, match=naming("photo.png", ".md", ".html")):
        find_corpus(tmp_path / "docs" / "photo.png")


@pytest.mark.parametrize(
    ("suffix", "said"),
    [
        (".doc", "save it as .docx"),
        (".ZIP", "unpack it"),
        (".x", "extension .x"),
        ("", "no extension"),
    ],
)
def test_a_skipped_file_says_what_to_do(suffix, said):
    assert said in why_skipped(suffix)


def test_sixty_four_files_in_four_scripts_are_read_to_the_letter(tmp_path):
    cutter = Cutter(tokenizer_of("tiny"))
    wanted = mixed.make_folder(tmp_path)
    assert len(wanted) == 64
    for file in find_corpus(tmp_path).files:
        bad: list[str] = []
        read = read_sections(file, hashlib.sha256(), lambda *told: bad.append(str(told)))  # noqa: B023
        texts = [piece.text for section in read for piece in cutter.cut(section)]
        for text in wanted[file.source]:
            assert any(text in each for each in texts), (file.source, text, texts)
        assert not bad


# Encodings

UNICODE = [
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-32",
    "utf-16-le",
    "utf-16-be",
    "utf-32-le",
    "utf-32-be",
]


@pytest.mark.parametrize("encoding", UNICODE)
@pytest.mark.parametrize("script", [*SCRIPTS, "cyrillic", "english", "hangul"])
def test_unicode_is_recognised_with_and_without_a_mark(encoding, script):
    more = {
        "cyrillic": ["Ключи висят в архиве."],
        "english": ["Keys."],
        "hangul": ["열쇠는 서랍에 있다."],
    }
    text = "\n".join([*(SCRIPTS | more)[script], "12"])
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Schlüssel — „für“ die Tür"),
        ("latin-1", "Caf\xe9"),
        ("gb18030", "钥匙挂在档案室里。" * 9),
        ("shift_jis", "鍵は保管庫に掛かっています。" * 9),
        ("iso2022_jp", "鍵は保管庫に掛かっています。"),
    ],
)
def test_other_encodings_are_reported_and_read_on_request(encoding, text):
    with pytest.raises(UnreadableError, match=r"not UTF-8 text .*--encoding"):
        decode(text.encode(encoding))
    assert decode(text.encode(encoding), encoding) == text
    assert decode(text.encode(), encoding) == text  # a Unicode file beside them


@pytest.mark.parametrize("encoding", ["utf-7", "hz"])
def test_encodings_of_ascii_bytes_are_read_on_request(encoding):
    for data in ("数据存储".encode(encoding), "数据存储".encode()):
        assert decode(data, encoding) == "数据存储"


@pytest.mark.parametrize("text", ["Größe: 10 €", "Übermut tut selten gut"])
def test_a_likely_encoding_reads_the_text(text):
    with pytest.raises(UnreadableError) as error:
        decode(text.encode("cp1252"))
    found = re.search(r"--encoding (\w+)", str(error.value))
    assert found is None or decode(text.encode("cp1252"), found[1]) == text


def test_short_latin_text_is_not_taken_for_utf_16():
    with pytest.raises(UnreadableError, match="perhaps cp125"):
        decode("café".encode("cp1252"))


@pytest.mark.parametrize(
    "data", [b"abc\0", b"abc\0\0\0\0\0", b"a\0\0\0b", b"\0" * 64, b"ab\0cd\0ef"]
)
def test_nuls_are_never_indexed(data):
    with pytest.raises(UnreadableError, match="NUL characters"):
        decode(data)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE])
def test_damaged_text_says_what_it_is(mark):
    with pytest.raises(UnreadableError, match=r"damaged text, UTF-.* by its mark"):
        decode(mark + b"abc")


def test_all_line_ends_are_one():
    assert decode(b"a\r\nb\rc\nd\r\r\ne") == "a\nb\nc\nd\n\ne"


# Text and Markdown


def test_markdown_and_text_as_they_stand(tmp_path):
    ((section,), bad) = sections(write(tmp_path / "a.md", b"\xef\xbb\xbf# \xc3\x9c\r\n\r\nTwo"))
    assert (section.text, section.markdown, section.metadata, bad) == ("# Ü\n\nTwo", True, {}, [])
    ((section,), _) = sections(write(tmp_path / "a.txt", "# no heading"))
    assert not section.markdown


@pytest.mark.parametrize(
    ("matter", "title", "fields"),
    [
        ("---\ntitle: Keys\ntags: [a, b]\ndate: 2026-01-02\n---\n", "Keys",
         {"tags": ["a", "b"], "date": "2026-01-02"}),
        ("---\nversion: 1.10\nzip: 01234\nat: 12:30\nland: no\nn: 5\nok: true\n---\n", None,
         {"version": "1.10", "zip": "01234", "at": "12:30", "land": "no", "n": 5, "ok": True}),
        ('+++\ntitle = "Keys"\nid = 7\n+++\n', "Keys", {"record_id": 7}),
        ("---\ndraft: true\n...\n", None, {"draft": True}),
    ],
)  # fmt: skip
def test_front_matter_becomes_metadata(tmp_path, matter, title, fields):
    ((section,), _) = sections(write(tmp_path / "a.md", f"{matter}text\n"))
    assert (section.text, section.place.get("title"), section.metadata) == ("text\n", title, fields)


@pytest.mark.parametrize(
    "text", ["---\nA rule, no fields.\n---\nx", "---\na: [\n---\nx", "---\nx: 1\nno end",
             "---\na: 1\na: 2\n---\nx", "---\nid: 1\nrecord_id: 2\n---\nx", "+++\na = nan\n+++\nx"]
)  # fmt: skip
def test_what_is_no_front_matter_stays(tmp_path, text):
    ((section,), _) = sections(write(tmp_path / "a.md", text))
    assert section.text == text


# HTML


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<details><summary>How?</summary>Press.</details>", "How?\nPress."),
        ("<nav>Home</nav>Text", "Home\nText"),
        ("<select><option>Oslo</option><option>Rome</option></select>", "Oslo\nRome"),
        ("<select><optgroup label=E><option>Oslo</select>", "E\nOslo"),
        ("<button>OK</button><button>No</button><input type=submit value=Go>x", "OK No Go x"),
        ("<dl><dt>a<dd>b<dt>c<dd>d</dl>", "a\nb\nc\nd"),
        ("<ul><li>a<li>b<ul><li>c</ul></ul>d", "a\nb\n\nc\n\nd"),
        ("<fieldset><legend>a</legend>b</fieldset>", "a\nb"),
        ("a<br>b<br><br>c<hr>d", "a\nb\n\nc\n\nd"),
        ("<table><caption>t</caption><tr><th>a<th>b<tr><td><td>2</table>", "t\na\tb\n\t2"),
        ("<table><tr><td rowspan=2>N<td>a<td>1<tr><td>b<td>2<tr><td>S<td>c<td>3</table>",
         "N\ta\t1\n\tb\t2\nS\tc\t3"),
        ("<table><tr><th colspan=2>Name<th>Age<tr><td>A<td>B<td>3</table>", "Name\t\tAge\nA\tB\t3"),
        ("<table><tr><td>a<td rowspan=3>b<td colspan=2>c<tr><td>d<td rowspan=0>e<td>f<tr><td>g<td>h",  # noqa: E501
         "a\tb\tc\nd\t\te\tf\ng\t\t\th"),
        ("<table><thead><tr><td rowspan=9>a<td>b<tbody><tr><td>c<td>d</table>", "a\tb\nc\td"),
        ("<table><tr><td rowspan=x colspan=0>a<td colspan=-1>b</table>", "a\tb"),
        ("<p>10<sup>6</sup> m<sup>-2</sup>, the 1<sup>st</sup> H<sub>2</sub>O",
         "10⁶ m⁻², the 1st H2O"),
        ("<ruby>東<rt>とう</rt>京<rt>きょう</rt></ruby>へ", "東京(とうきょう)へ"),
        ("a<b style='visibility: hidden'>h</b>", "a"),
        ("<p>up<b>per</b>ca<wbr>se <i>it</i>\n  <span>al</span>ic", "uppercase it alic"),
        ("<p>10&nbsp;km\u3000\u2009x</p>", "10\u00a0km\u3000\u2009x"),
        ("<p>می\u200cخواهم &zwj;x</p>", "می\u200cخواهم \u200dx"),
        ("<pre>\n  a\n\n\tb </pre>", "  a\n\n\tb "),
        ("<textarea>\na\n b</textarea>", "a\n b"),
        ('<div style="white-space: pre-wrap">a\n  b</div>', "a\n  b"),
        ("a<script>x</script><style>y</style><template>z</template><noscript>s</noscript>b", "ab"),
        ("a<span hidden>h</span><i style='display:none'>n</i><!-- c -->b", "ab"),
        ("<p>a<p>b<div>c<div>d</div></div>e", "a\n\nb\n\nc\nd\ne"),
        ("<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp></ruby>", "漢(かん)"),
        ("<math><mfrac><mn>1</mn><mrow><mi>x</mi><mo>+</mo><mi>y</mi></mrow></mfrac></math>",
         "1/(x+y)"),
        ("<math><msup><mi>x</mi><mn>2</mn></msup></math>", "x^2"),
        ("<math><msub><mi>a</mi><mi>i</mi></msub></math>", "a_i"),
        ("<svg><text>a</text><text>b</text><title>no</title></svg>", "a b"),
    ],
)  # fmt: skip
def test_html_is_read_as_a_browser_shows_it(markup, text):
    assert html_section(markup, 0).text == text


def test_html_has_headings_and_a_title(tmp_path):
    page = b"<title>The  office</title><h1>Opening <em>hours</em></h1><p>a<h2></h2><h3>Prices</h3>b"
    ((section,), _) = sections(write(tmp_path / "a.html", page))
    assert section.place == {"title": "The office"}
    titles = [piece.place["title"] for piece in Cutter(tokenizer_of("tiny")).cut(section)]
    assert titles == ["Opening hours", "Opening hours > Prices"]


@pytest.mark.parametrize(
    ("declared", "real", "text"),
    [
        ("gb2312", "gb18030", "数据㎡镕"),
        ("shift_jis", "cp932", "①日本"),
        ("x-sjis", "cp932", "日本"),
        ("euc-kr", "cp949", "뷁"),
        ("iso-8859-1", "cp1252", "10 €"),
    ],
)
def test_html_is_read_in_the_character_sets_of_browsers(tmp_path, declared, real, text):
    data = f"<meta charset={declared}><p>{text}".encode(real)
    ((found,), _) = sections(write(tmp_path / "a.html", data))
    assert found.text == text


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "windows-1252", "gb18030", "shift_jis"])
def test_html_says_its_encoding(tmp_path, charset):
    word = "鍵" if charset in ("gb18030", "shift_jis") else "é"
    data = f'<meta http-equiv=x content="text/html; charset={charset}"><p>{word}'.encode(charset)
    ((section,), _) = sections(write(tmp_path / "a.html", data))
    assert section.text == word
    with pytest.raises(UnreadableError, match=naming("character set", "'no-such'")):
        sections(write(tmp_path / "b.html", b"<meta charset=no-such>x"))


# PDF


def test_a_pdf_page_by_page(tmp_path):
    data = pdf(["Keys hang in the archive.", "", "豆は月曜日。"])
    found, bad = sections(write(tmp_path / "a.pdf", data))
    assert [(s.text.strip(), s.place["page"]) for s in found] == [
        ("Keys hang in the archive.", 1),
        ("", 2),
        ("豆は月曜日。", 3),
    ]
    assert not bad  # an empty page is no scan


def test_what_is_filled_into_a_pdf_is_read(tmp_path):
    at = "/Type /Annot /Rect [72 600 200 620]"
    fields = [
        f"<< {at} /Subtype /Widget /FT /Tx /T (Customer) /V (Acme) >>",
        "<< /FT /Tx /T (City) /V <FEFF00C500D8> /Kids [103 0 R] >>",
        f"<< {at} /Subtype /Widget /Parent 102 0 R >>",
        f"<< {at} /Subtype /FreeText /Contents (Typed) >>",
        f"<< {at} /Subtype /Text /Contents (a comment) >>",
    ]
    objects = "".join(f"{n} 0 obj\n{body}\nendobj\n" for n, body in enumerate(fields, 101))
    data = pdf(["Contract"]).replace(b"xref\n", objects.encode() + b"xref\n", 1)
    form = b"/Type /Catalog /AcroForm << /Fields [101 0 R 102 0 R] >>"
    data = data.replace(b"/Type /Catalog", form)
    page = b"/Type /Page /Annots [101 0 R 103 0 R 104 0 R 105 0 R] /Parent"
    data = data.replace(b"/Type /Page /Parent", page)
    ((section,), _) = sections(write(tmp_path / "a.pdf", data))
    assert section.text == "Contract\nCustomer: Acme\nCity: ÅØ\nTyped"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a readable PDF"),
        (b"plain words", "not a readable PDF"),
        (pdf(["", ""]), r"a PDF without text \(2 pages\)"),
        (pdf(["Some words."])[:150], "not a readable PDF"),
    ],
)
def test_a_bad_pdf_says_why(tmp_path, data, reason):
    with pytest.raises(UnreadableError, match=reason):
        sections(write(tmp_path / "a.pdf", data))


def with_picture(texts):
    """A page that shows a picture of one pixel."""
    picture = (
        "<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray "
        "/BitsPerComponent 8 /Length 1 >>\nstream\nx\nendstream"
    )
    return pdf(texts, picture)


def test_a_scan_is_called_so(tmp_path):
    with pytest.raises(UnreadableError, match=naming("PDF", "OCR", "1 pages")):
        sections(write(tmp_path / "a.pdf", with_picture([""])))
    found, bad = sections(write(tmp_path / "b.pdf", with_picture(["Words.", ""])))
    assert found[0].text.strip() == "Words."
    assert bad == ["a page without text: it is a scan: page 2"]


def unpacked(text):
    return zlib.decompress(base64.b85decode(text))


def test_an_encrypted_pdf_without_a_password_is_read(tmp_path):
    ((section,), _) = sections(write(tmp_path / "a.pdf", unpacked(AES)))
    assert section.text == "key"
    with pytest.raises(UnreadableError, match="it needs a password"):
        sections(write(tmp_path / "b.pdf", unpacked(AES_WITH_PASSWORD)))


@pytest.mark.parametrize(
    ("title", "kept"),
    [
        ("untitled", None),
        ("Untitled-1", None),
        ("Microsoft Word - draft.docx", None),
        ("(anonymous)", None),
        ("Opening hours", "Opening hours"),
    ],
)
def test_a_title_that_a_program_made_up_is_none(tmp_path, title, kept):
    ((section,), _) = sections(write(tmp_path / "a.pdf", pdf(["x"], title=title)))
    assert section.place.get("title") == kept


# Office files, books, mails


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.docx", "not a readable Word file"),
        ("a.xlsx", "not a readable Excel file"),
        ("a.pptx", "not a readable PowerPoint file"),
        ("a.epub", "not a readable EPUB"),
        ("a.eml", "not a readable e-mail"),
        ("a.json", "not JSON|not UTF-8"),
    ],
)
def test_a_broken_file_says_what_it_is_not(tmp_path, name, reason):
    for data in (b"plain words", b"", mixed.pack({"x": "y"}), b"\xd0\xcf\x11\xe0" + b"x" * 600):
        with pytest.raises(UnreadableError, match=reason):
            sections(write(tmp_path / name, data))


def test_a_sheet_is_a_table(tmp_path):
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "Ports"
    for row in (
        ["Service", "Port", "On"],
        ["a", 8000, True],
        [None, None, None],
        ["b", 0.1, "x\ny"],
    ):
        book.active.append(row)
    second = book.create_sheet("Empty")
    data = io.BytesIO()
    book.save(data)
    found, _ = sections(write(tmp_path / "a.xlsx", data.getvalue()))
    assert [(s.text, s.place) for s in found] == [
        ("Service\tPort\tOn\na\t8000\tTRUE\nb\t0.1\tx\ny", {"sheet": "Ports"}),
        ("", {"sheet": "Empty"}),
    ]
    assert second is not None


def test_slides_have_numbers_and_titles(tmp_path):
    data, _ = mixed.pptx("First", "A note")
    ((slide,), _) = sections(write(tmp_path / "a.pptx", data))
    assert (slide.text, slide.place) == ("One\n\nFirst\n\nA note", {"slide": 1, "title": "One"})


def test_a_chart_is_a_table(tmp_path):
    import pptx
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE

    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    values = CategoryChartData()
    values.categories = ["East", "West"]
    values.add_series("Sales", (1, 2.5))
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, 99, 99, values)
    data = io.BytesIO()
    deck.save(data)
    ((found,), _) = sections(write(tmp_path / "a.pptx", data.getvalue()))
    assert found.text == "\tSales\nEast\t1.0\nWest\t2.5"


def test_chapters_come_in_the_order_of_reading(tmp_path):
    data, _ = mixed.epub("First.", "Second.")
    found, _ = sections(write(tmp_path / "a.epub", data))
    assert [s.text for s in found] == ["One\n\nFirst.", "One\n\nSecond."]
    assert found[0].place == {"title": "T"}


def test_an_encrypted_book_is_called_so_and_one_with_encrypted_fonts_is_read(tmp_path):
    listed = '<encryption><CipherReference xmlns="urn:e" URI="{}"/></encryption>'
    for locked in ("OEBPS/font.otf", "OEBPS/b%20.xhtml"):
        data, _ = mixed.epub("First.", "Second.")
        book = io.BytesIO(data)
        with zipfile.ZipFile(book, "a") as file:
            file.writestr("META-INF/encryption.xml", listed.format(locked))
        path = write(tmp_path / "a.epub", book.getvalue())
        if locked.endswith(".otf"):
            assert len(sections(path)[0]) == 2
            continue
        with pytest.raises(UnreadableError, match="an encrypted EPUB: save it without"):
            sections(path)


def word_file(body):
    w = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    return mixed.pack(
        {
            "word/document.xml": f'<w:document xmlns:w="{w}"><w:body>{body}</w:body></w:document>',
            "[Content_Types].xml": "<Types/>",
            "_rels/.rels": "<Relationships/>",
        }
    )


def test_word_breaks_and_fields_separate_and_keep_words(tmp_path):
    def run(text):
        return f"<w:r><w:t>{text}</w:t></w:r>"

    page = '<w:r><w:br w:type="page"/></w:r>'
    field = f'<w:fldSimple w:instr="SEQ Figure">{run("Figure 1")}</w:fldSimple>'
    formula = '<m:oMath xmlns:m="math"><m:r><m:t>x</m:t></m:r></m:oMath>'
    body = f"<w:p>{run('one')}{page}{run('two: ')}{field}{formula}</w:p>"
    ((found,), bad) = sections(write(tmp_path / "a.docx", word_file(body)))
    assert found.text.split() == ["one", "two:", "Figure", "1"]
    assert bad == ["a part of a Word file that is not read: formulas"]


def test_text_that_word_writes_in_other_elements_is_read(tmp_path):
    def run(content):
        return f"<w:r>{content}</w:r>"

    reading = f"<w:rt>{run('<w:t>とう</w:t>')}</w:rt>"
    ruby = f"<w:ruby>{reading}<w:rubyBase>{run('<w:t>東</w:t>')}</w:rubyBase></w:ruby>"
    breaks = run("<w:t>a</w:t><w:cr/><w:t>b</w:t><w:ptab/><w:t>c</w:t>")
    drawn = '<c:chart xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart"/>'
    body = f"<w:p>{run(ruby)}<w:dir>{run('<w:t>x</w:t>')}</w:dir>{breaks}{run(drawn)}</w:p>"
    ((found,), bad) = sections(write(tmp_path / "a.docx", word_file(body)))
    assert found.text == "東(とう)xa\nb\tc"
    assert "a part of a Word file that is not read: a chart" in bad


def test_cells_are_read_as_they_are_shown(tmp_path):
    import datetime as dt

    import openpyxl
    from openpyxl.worksheet.formula import ArrayFormula

    book = openpyxl.Workbook()
    sheet = book.active
    for cell, value, form in (
        ("A1", 0.255, "0.0%"),
        ("B1", 123, "00000"),
        ("C1", dt.timedelta(hours=30), "[h]:mm"),
        ("D1", 0.5, '0.0" %"'),
        ("E1", ArrayFormula("E1:E2", "=B1*2"), "General"),
    ):
        sheet[cell] = value
        sheet[cell].number_format = form
    chart = openpyxl.chart.BarChart()
    chart.add_data(openpyxl.chart.Reference(sheet, min_col=1, min_row=1, max_row=1))
    book.create_chartsheet("Drawn").add_chart(chart)
    data = io.BytesIO()
    book.save(data)
    ((found,), bad) = sections(write(tmp_path / "a.xlsx", data.getvalue()))
    assert found.text == "25.5%\t00123\t30:00:00\t0.5\t=B1*2"
    assert bad == ["a part of an Excel file that is not read: sheet 'Drawn' (a chart)"]


def test_parts_of_slides_that_are_not_read_are_named(tmp_path):
    import pptx
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE

    deck = pptx.Presentation()
    shapes = deck.slides.add_slide(deck.slide_layouts[5]).shapes
    shapes.title.text = "Parts"
    data = CategoryChartData()
    data.categories = ["a"]
    data.add_series("s", [1])
    chart = shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, 1000, 1000, data)
    (plot,) = chart.chart.part._element.xpath("//c:barChart")
    plot.tag = plot.tag.replace("barChart", "ofPieChart")  # which python-pptx does not know
    thing = shapes.add_ole_object(io.BytesIO(b"thing"), "Package", 0, 0)
    made = io.BytesIO()
    deck.save(made)
    ((slide,), bad) = sections(write(tmp_path / "a.pptx", made.getvalue()))
    assert slide.text == "Parts"
    assert len(bad) == 2
    assert all(each.startswith("a part of a PowerPoint file that is not read") for each in bad)
    assert chart.name in bad[0]
    assert thing.name in bad[1]


def test_xhtml_may_close_empty_elements_in_their_tag(tmp_path):
    page = (
        "<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'><head><title/>"
        "<script src='a.js'/></head><body><p>One<a id='x'/><br/>two</p><textarea/>"
        "<p>1 &lt; <![CDATA[2 < 3]]></p></body></html>"
    )
    ((found,), _) = sections(write(tmp_path / "a.xhtml", page))
    assert (found.text, found.place) == ("One\ntwo\n\n1 < 2 < 3", {})


@pytest.mark.parametrize("kind", ["plain", "html"])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1251"])
def test_a_mail_without_a_character_set_is_read_like_a_file(tmp_path, kind, encoding):
    text = "Привет" if kind == "plain" else f"<meta charset={encoding}><p>Привет"
    head = f"Subject: x\nContent-Type: text/{kind}\nContent-Transfer-Encoding: 8bit\n\n"
    path = write(tmp_path / "a.eml", head.encode() + text.encode(encoding))
    if kind == "plain" and encoding != "utf-8":
        with pytest.raises(UnreadableError, match="not UTF-8 text"):
            sections(path)
    ((body,), _) = sections(path, encoding=encoding)
    assert body.text == "Subject: x\n\nПривет"


def test_parts_of_a_mail_without_a_name_are_read_by_their_type(tmp_path):
    message = EmailMessage()
    message["Subject"] = "x"
    message.set_content("Body.")
    message.add_attachment("café", charset="iso-8859-1")
    message.add_attachment(b"a;b\n1;2\n", "text", "csv")
    message.add_attachment(b"\x89PNG", "image", "png")
    found, bad = sections(write(tmp_path / "a.eml", bytes(message)))
    assert [s.text for s in found[1:]] == ["café\n", "a;b\n1;2\n"]
    assert [s.place["attachment"] for s in found[1:]] == ["text/plain.txt", "text/csv.csv"]
    assert bad == ["an attachment: pictures and the like: image/png.png"]


def test_a_mail_that_is_one_file_is_read_as_an_attachment(tmp_path):
    head = b"Subject: x\nContent-Type: application/json\n\n"
    found, _ = sections(write(tmp_path / "a.eml", head + b'["a"]'))
    assert [s.text for s in found] == ["Subject: x", '["a"]']
    _, bad = sections(write(tmp_path / "a.eml", head.replace(b"json", b"x-nothing") + b"x"))
    assert len(bad) == 1
    assert "unsupported file type (no extension): application/x-nothing" in bad[0]


def test_attachments_are_read_or_named(tmp_path):
    data, _ = mixed.mail("Body.", "End.")
    data = data.replace(b'filename="x.txt"', b'filename="x.bin"')
    ((body,), bad) = sections(write(tmp_path / "a.eml", data))
    assert body.place == {"title": "Keys"}
    assert body.text.endswith("Body.\n\nEnd.\n")
    assert bad == ["an attachment: unsupported file type (extension .bin): x.bin"]


def multipart(kind, *parts):
    whole = MIMEMultipart(kind)
    for part in parts:
        whole.attach(part)
    return whole


PLAIN, RICH, FOOT = MIMEText("Plain."), MIMEText("<p>Rich.", "html"), MIMEText("Foot.")
SHEET = MIMEText("a,b", "csv")
SHEET.add_header("Content-Disposition", "attachment", filename="a.csv")


@pytest.mark.parametrize(
    ("message", "body", "attached"),
    [
        (multipart("mixed", multipart("alternative", PLAIN, RICH), FOOT), "Plain.\n\nFoot.", []),
        (multipart("mixed", PLAIN, SHEET, RICH), "Plain.\n\nRich.", ["a,b"]),
        (multipart("mixed", RICH, FOOT), "Rich.\n\nFoot.", []),
        (multipart("alternative", PLAIN, multipart("mixed", RICH, SHEET)), "Plain.", ["a,b"]),
        (multipart("signed", multipart("mixed", PLAIN, SHEET)), "Plain.", ["a,b"]),
        (multipart("related", RICH, FOOT), "Rich.\n\nFoot.", []),
    ],
)
def test_all_texts_of_a_mail_are_read(tmp_path, message, body, attached):
    data = b"Subject: Keys\n" + message.as_bytes()
    ((first, *others), bad) = sections(write(tmp_path / "a.eml", data))
    assert (first.text, [s.text for s in others], bad) == (f"Subject: Keys\n\n{body}", attached, [])


@pytest.mark.parametrize(
    ("name", "package"),
    [
        *(("a.pdf", "pypdfium2"), ("a.html", "selectolax.lexbor"), ("a.md", "markdown_it")),
        *(("a.docx", "mammoth"), ("a.xlsx", "openpyxl"), ("a.pptx", "pptx")),
    ],
)
def test_a_missing_package_is_named_with_the_extra(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UnreadableError, match=r'run `pip install "qwen3-retrieval\[ingest\]"`'):
        sections(write(tmp_path / name, "x"))


# Records and tables


def test_a_line_that_names_the_delimiter_belongs_to_the_header():
    rows = "".join(f"{i};x, y\n" for i in range(9))
    (block,) = read_table(f"sep=;\nnumber;name\n{rows}".encode(), None).blocks
    assert block.heads == (
        (0, len("sep=;\nnumber;name\n"), len("sep=;\nnumber;name\n") + len(rows)),
    )
    assert len(block.cuts) == 9


def test_a_field_of_any_length_is_read():
    assert len(read_table(b"a,b\n" + b"x" * 200_000 + b",1\n", None).text) == 200_007


def test_json_lines_under_another_name_are_named(tmp_path):
    path = write(tmp_path / "a.json", '{"text": "a"}\n{"text": "b"}\n')
    with pytest.raises(UnreadableError, match=naming(".jsonl", "line 2")):
        sections(path)


def test_json_lines_one_by_one(tmp_path):
    lines = [
        '\ufeff{"body": "First", "text": "its own", "page": 3, "none": null, "$meta": 1, "": 2}',
        "",
        '{"body": "Second", "nested": {"a": [1, 2.5]}}',
        '{"body": 5}',
        '{"body": "x", "big": "' + "y" * MAX_METADATA + '"}',
        "[" * 100_000,
        '{"body": "a\\u0000b"}',
        '{"body": "a", "body": "b"}',
        '{"body": "a", "id": 1, "record_id": 2}',
    ]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    found, bad = sections(path, text_field="body")
    assert [s.text for s in found] == ["First", "Second"]
    assert found[0].metadata == {
        "record_text": "its own",
        "page": 3,
        "record_$meta": 1,
        "record_": 2,
    }
    assert found[1].metadata == {"nested": {"a": [1, 2.5]}}
    assert sum(s.size for s in found) == sum(len(line.encode()) + 1 for line in lines[:3:2])
    assert [reason.split(":")[1].strip() for reason in bad] == [f"line {i}" for i in range(4, 10)]


def test_a_line_that_is_no_text_is_one_bad_line(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "\xff"}\n{"text": "Good"}')
    found, (bad,) = sections(path)
    assert [s.text for s in found] == ["Good"]
    assert bad.startswith("a bad line: line 1: not UTF-8 text (byte 0xff at 10")


def test_json_records_are_rows_and_other_json_is_a_text(tmp_path):
    records = json.dumps([{"text": "a", "n": 1}, {"no": 1}])
    found, (bad,) = sections(write(tmp_path / "a.json", records))
    assert [(s.text, s.metadata) for s in found] == [("a", {"n": 1})]
    assert bad.startswith("a bad record: record 2: no string in the field 'text'")
    records = ' [ {"text": "a, ]"} ,{"text": "b", "text": "c"},\n3, {"text": "d", "n": 1e999} ,'
    records += '{"text": "e"}]'
    found, bad = sections(write(tmp_path / "c.json", records))
    assert [s.text for s in found] == ["a, ]", "e"]
    assert [reason.removeprefix("a bad record: ").partition(" (")[0] for reason in bad] == [
        "record 2: the field 'text' occurs twice in an object",
        "record 3: a JSON int, not an object",
        "record 4: the number 1e999 is out of range",
    ]
    text = '{"key": "\\u6771\\u4eac \\ud83d\\ude00 \\n\\\\u00e9", "n": 1.50e1}'
    ((section,), _) = sections(write(tmp_path / "b.json", text))
    assert section.text == '{"key": "東京 😀 \\n\\\\u00e9", "n": 1.50e1}'


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_is_kept_to_the_letter_and_cut_between_records(tmp_path, delimiter):
    rows = [["name", "note"], *([f"n{i}", f'"line\n{delimiter} {i}"'] for i in range(60))]
    text = "\n".join(delimiter.join(row) for row in rows)
    ((section,), _) = sections(write(tmp_path / "a.csv", text))
    assert section.text == text
    pieces = [
        p.text for p in Cutter(tokenizer_of("tiny"), chunk_size=64, chunk_overlap=0).cut(section)
    ]
    assert len(pieces) > 3
    assert all(
        piece.startswith(f"name{delimiter}note\nn") and piece.endswith('"') for piece in pieces
    )


def test_a_broken_table_names_the_line(tmp_path):
    with pytest.raises(UnreadableError, match=r"not a table \(line 3: "):
        sections(write(tmp_path / "a.csv", 'a,b\n1,2\n"x'))


def test_sections_begin_with_a_block():
    assert Section("x", 1).blocks[0].start == 0


AES = (
    "c-oCsdx%t37^f_&ixy;MrN)6;5_FsMxaXd8+G%rlc1M@Z-E~)Y^9kqPbM830GqcRxO*b|nqEI7?%23IIm5`(&)G`7oX-"
    "&aDf<$5!dsxtmGVCFlQQw{2bq7bNnYqI~-}#=u^ZUM2)6tZ!CHFC>=FHch9Crx9sNk=0l1V4Ac%aXsL`p}xw~%oX9Xex"
    "6h=M|=Q(y1cyonWQl|fn0Nwj872`xt~)<-LyM5@rAj}WOaWmhzf0~IZ(jz$8zd<4r9a!1#lwp8dZ29Qc@mxkTZ7lQbBY"
    "Vb=ev?i+?3+o{T3}25>Bou{2CgQsl@gK7JOtcz#ZoFTLidN^GFGy$V$o>_N(`O#cWxHORe9ex-spq?IKY#G#?w+T<-@a"
    "w}$4hzLffJkWShQ!~p?9u+b;plS`rBW8;MDYE!@rCSp8PP5Gv;b6BCo1A&fiIN_4`qI84IzKXw)TJt}Kyu63zLbV6yoP"
    "O0*aNA{!0VE^rb}wiJL@osVM07-?@D>BWU5`7GF2BriKG@4w=wTAE@>yhkrf1Gc&bN|DXA<ikQ4@=lw{LVW`$83;^$g+"
    "q%&>D$m)pJ{8DuZ*XB$&8?(FfuS&VakbcwQ;q_m6BdS45b#%tG#G!F|IO61!kOi%=%$yK{sF;hlWeTZNQC^;M-uyuxEt"
    "T3@c_s&Z)~;pd~d7*T?nr_4V3Z%pzQ7LtI6SSTWld6^clVQmLs2af~bQ5m&@#!f@14o6gxXB<WtA0bY(u8z;y{FdqAZ("
    "`bSA$p#JiOs|Dx5)JXOMMy&2u``TNEsa+x-M7GIGpi#c;$;^=-3@vb>B(xsQd-H_p$oM)_D`w%dHAaLr(OT_xxtZ|k6I"
    "g6z0ot^TuA*r_qJ2hK0ET$vE0(SXK%$b`*+S>_1p~p#GR+Vy?^aj``0wK{*#(Lee?W>f7sC0_L!Nc&EUN+{ITw?SBCG|"
    "F!cL|Tee>JW!u2+qkCR{sd3fR8+H#39a(vC*2t!9=Zrct$2q=_ZyJ7c<6Gol>OGvC)U$U*dT{ELopq=0-ZC#YYiMuh@x"
    "{Mxxq0K~f1Wrw<>GgLz1}@{+4(v1TbKWa7Jf71tUJ;(>Fm+jrCn>;+uOEgmR<Yq%tiALcO2UFfj@tbp1kf;wf@kqn+_z"
    "aJ4#hR(v3Kf5_uEgaCq-PE>*7b1XV!kbhbCLMFi+-Xr7`0;-RD>fpQ7+xKM#GzVvzE(Lf2sDB*tK`^+bdNUSjyq3;nHN"
    "G7#*xx#_PzRykI87x4+Wq^IbnDu<hF>{UNT)05MCBW-YGh$pG>M+Evafu7gse&i;F%OyYLYJG+x>$N427&}wfC|&nQ!Z"
    "A9guYOkDldRm2t?o$gMH0JfT0nniJK^uE;nXZWX9ea`lHp&kHj2HG!=sOKAVq~7NSH$b5}RJ1Qes=W3wyDrO~K^cu|~K"
    "v^S%q3>jBcdPch;HJoaf;y_AIhBi>d3n52Js2}<a0ClO=mNOPG08hXPFcJd+ZmdhaP%uTUAOeaN6efdoF<=EF1Kd-|18"
    "EKM2zVp}8s7*%P~2k6WI(}9hb`vd1`rw>9!l=wP!Zp=p)@{70uBiRI-<U!d)60i=)`^L;7cFman3jj(Ipvy8C~AVPslv"
    "CN=7KFlEG-Jk^!lzWUi{V6|&kEPW^Hjp_TbXMV;-n#WMN3vX9!hwnS&40N3p3fNN=jiIfC}5(Oie8X}qJ3a)^I@n{ylf"
    "H57`{~wi=<%_5|&=(;!eyfxsU5v`G5+SftQ`6j@cK!u_(Rw@"
)
AES_WITH_PASSWORD = (
    "c-oCsdx%t37#9`HYxIXoT2h{<B}&#gk9*HOhnB_N+1*^zR$N^{GdQn1&ayi*-nlET;2%+lqJdIDkwsvlL{uatQn)?>H~"
    "(256<QJb?xB<><OV|Domt(*5o&grz2A4f=kNT!@767DX{#r5nOAr2{Lm?nAdHH-+iPg>GE4hQ4rQ_`Q9Z?+mszZGu8b%"
    "cEb$r}Jy)=)A+2$!*m;@f^0tgtB9_{tRbD1r>?<UQjB#c6bWIb*4os_=z^{;iSVn$TUgFBdzSux1sb3qMRv!ooZkGn%%"
    "pzy=s=2rhO2F{P2}Pl#P{?S0e@y;`u8>PsBkrf?<s^2h*PD0t$fUPAp4|IbeDv7F_3vF6nswsnyTuE^2Qz<M5MP>jw%a"
    "{$@r^GpTcalrEIannx!;RB7cSrO=4;Ok@3}tk`0QJ0o{>-^8H1XR)B3$kXP-_gVyeVmrdgF;rL#<%muW4SqRkg_DAR5M"
    "h<wstKi|u=xUzw$s*t3HDboBl(o2iW3VHBxNZfT<{J-*N+gnmidPeUm1CBcT%Zcl4FGR%(<V##G5B>F{215fD7!fijB-"
    "e@)VKDY-$cU!GnlQjYM73l}Su6?sbIgU2j~x#%#n`}ob;Q=iX_pNu&>>+o2pFX}l#WR)1-2?=Mq5dZuYDnj^oe9d5rG2"
    "(A*A7!J8Fd1jcGrnQjhCRS%fQWNV`Z8i}R(V7^ARCrIzI=z<3Nk;XUygb*u(@UiG>PByBw^2fVCmn@7n;Fdq4V+h~XJ$"
    "(yD^uE#+!nWpsG5+oq+$Q>rAo~BY(mFByAZgqmfRO|$(yTEQtd7_rEl#XTWnfe_|mw$ijNcPIW?tz5AI{v%4+de%wXXB"
    "+4!Ge=FHf;6#hGz79J$c}r8N=^Cys7lm`O^n(?)vp=;ftMve@~il;zIAV6&IVYo$9zW<M7<BIfLbeuV2~m=;m%bZQx*O"
    "=5Lo@n0{^hi+{3T>bD*r@;1+#d%b-1>H2S<Sh0WV$t`xx<ik^5KE3h4!hP8dKWzMF^7!`IZ%_Gf!nh58$?2ag8ocl4X#"
    "IY+Yxi*B!R+=~SHf|xG_O3q?M8Cwqci(99qPFH&sXcjn*2|Do?S2vuO0q;*VHv#WN&V;`|P@#_n&`g`XlE)`(ydXwG$="
    "BK+=T*ASL3X-~{lz82MECl800RrQ7m7iHi}St6+Fy3&cYWB(U6QAeYgK`aF`1MV9%Fg$^qkVP9JtVHE{3&_+oku+S_Lo"
    "N~o6$dMMDDRA<s6+W{}laR~EXDTwB>Iew93^jy?I-?`)0xJxGK_QWFG$a&M(ni2^<zu3GWGoTZSw*NK5yb`z2N|)2V16"
    "jL6a@R2J3|~e8b`TL11fyTl5MLDW@lnYo|^iS)vaq&j%8YkrlaHvsnH^oX=?54Vt0UI^!D29OnTc;H9#uFqe4e3YQT~2"
    "wB{lpP`uSjM?z?BB@C&s7*lDjHh>&J!x(kG(uNSDlrfRQV4DH~VF1HW1qN$ymdu1<Aca;Dh9MU=guMYR5okS9K2;RfiG"
    "##AV3^5Bga$*H#V+oJHvo%ZL%>dvDs;v-gmZ<N38+=R;eoV`W2R?a>>@9nOAp`qAP#FLKoPp5Be0_@CxuZR_iJ>7vKk!"
    "?NR5v1+IYUK^$kU>uk`WVIzq?Rm&7XH<KhbWJM-&Z+FNExu?Vl(>Vj);fsNE)BS)er)Nm6*VNDg&lEdw>Ad~@%c;o*uS"
    "yg!v#r>rO$=h$0a-!m-0xJna?A6t^cC>l_0+*(SfB"
)
