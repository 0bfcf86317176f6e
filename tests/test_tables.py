"""Tables: text with aligned columns, and HTML that shows any text as it is."""

from npflow.tables import Table

TABLE = Table("counts <a>", ("name", "count", "sign"), (("one & two", 1234, "+"), ("three", 5, "")))


def test_numbers_stand_at_the_right_and_text_at_the_left():
    assert str(TABLE).splitlines() == [
        "counts <a>",
        "name       count  sign",
        "one & two  1,234  +",
        "three          5",
    ]
    assert repr(TABLE) == str(TABLE)


def test_html_shows_markup_as_text():
    html = TABLE._repr_html_()
    assert "counts &lt;a&gt;" in html and "one &amp; two" in html and "<a>" not in html
    assert html.count("<tr>") == 3 and html.count("text-align: right") == 2
