"""XMP packets: what an enlargement makes untrue put right, and a note of what made the image.

Packets are patched as text, so everything else in them survives as it stood. Knows no pixels.
"""

import re
from html import escape

_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>\s*))[2-8]""")
_THUMBNAILS = re.compile(rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails>|<(xmp|xap):Thumbnails\b[^>]*/>", re.DOTALL)
_END = re.compile(rb"</rdf:RDF\s*>")
_NAMESPACE = "https://unfold.invalid/ns/1.0/"  # a name, not an address
_OWN = rb"""\s+unfold:(?:software|model|scale)=(?:"[^"]*"|'[^']*')"""
_NOTE = re.compile(  # our own element; where another program has put our properties into its own, they alone
    rb'\s*<rdf:Description rdf:about="" xmlns:unfold="'
    + re.escape(_NAMESPACE.encode())
    + rb'"(?:'
    + _OWN
    + rb")*\s*/>|"
    + _OWN
)
_EMPTY = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def upright(packet: bytes) -> bytes:
    """`packet` saying orientation 1, which readers without EXIF believe, and without thumbnails."""
    return _THUMBNAILS.sub(b"", _ORIENTATION.sub(rb"\g<1>1", packet))


def resized(packet: bytes, width: int, height: int, dpi: tuple[float, float] | None) -> bytes:
    """`packet` with this size and resolution where it gives any."""
    for names, value in (
        (rb"tiff:ImageWidth|exif:PixelXDimension", width),
        (rb"tiff:ImageLength|exif:PixelYDimension", height),
    ):
        packet = _with_value(packet, names, rb"\d+", str(value))
    for name, density in zip((rb"tiff:XResolution", rb"tiff:YResolution"), dpi or (), strict=False):
        packet = _with_value(packet, name, rb"\d+(?:/\d+)?", f"{round(density * 10_000)}/10000")
    return _with_value(packet, rb"tiff:ResolutionUnit", rb"\d", "2") if dpi else packet


def with_note(packet: bytes | None, facts: dict[str, str]) -> bytes | None:
    """`packet`, or a new one, with `facts` as properties unfold:NAME; an earlier note is replaced.

    A packet that is no RDF stays as it is.
    """
    whole = _NOTE.sub(b"", packet) if packet else _EMPTY
    ends = list(_END.finditer(whole))
    if not ends:
        return packet
    properties = " ".join(f'unfold:{name}="{escape(value)}"' for name, value in facts.items())
    note = f'<rdf:Description rdf:about="" xmlns:unfold="{_NAMESPACE}" {properties}/>'
    return whole[: ends[-1].start()] + note.encode() + whole[ends[-1].start() :]


def _with_value(packet: bytes, names: bytes, pattern: bytes, value: str) -> bytes:
    place = re.compile(rb"((?:" + names + rb""")\s*(?:=\s*["']|>\s*))""" + pattern)
    return place.sub(lambda found: found[1] + value.encode(), packet)
