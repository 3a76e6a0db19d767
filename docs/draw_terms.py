"""Draw docs/terms.svg: where a memory sits in a model, and how documents use its entries."""

from __future__ import annotations

from pathlib import Path

INK, FROZEN, TRAINED, OUT = "#222222", "#e8e8e8", "#fdd9a0", "#ffffff"
SETS = (("document A", (0, 1, 2, 3)), ("document B", (2, 3, 4, 5)), ("document C", (6, 7)))
"""Entries of three documents; A and B are alike and share two."""
COLOURS = ("#0072b2", "#d55e00", "#009e73")  # told apart also by colour-blind people


def box(x: float, y: float, w: float, h: float, fill: str, text: str = "", stroke: str = INK) -> str:
    """Return a rectangle with a text in its middle."""
    shape = f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="4" fill="{fill}" stroke="{stroke}"/>'
    return shape + (words(x + w / 2, y + h / 2 + 5, text, "middle") if text else "")


def words(x: float, y: float, text: str, anchor: str = "start", size: int = 14, colour: str = INK) -> str:
    """Return a text."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{text}</text>'


def arrow(*points: tuple[float, float]) -> str:
    """Return a line with a head at its end."""
    path = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{INK}" marker-end="url(#head)"/>'


def drawing() -> str:
    """Return the whole picture as SVG."""
    parts = [words(20, 28, "A frozen model with a memory after block L", size=16)]
    names = ("block 0", "…", "block L", "block L+1", "…", "head")
    for number, name in enumerate(names):
        parts.append(box(20, 330 - 58 * number, 130, 32, FROZEN, name))
        if number:
            parts.append(arrow((85, 388 - 58 * number), (85, 364 - 58 * number)))
    parts.append(words(85, 390, "tokens", "middle"))
    parts += [arrow((85, 208), (250, 208), (250, 246)), box(190, 248, 120, 30, TRAINED, "up, GELU")]
    parts += [arrow((250, 278), (250, 296)), box(190, 298, 120, 30, TRAINED, "down, norm")]
    parts += [arrow((310, 313), (340, 313), (340, 197), (93, 197)), words(346, 250, "× gate, added to h")]
    parts += ['<circle cx="85" cy="197" r="7" fill="#ffffff" stroke="#222222"/>', words(85, 202, "+", "middle")]
    parts += [words(190, 352, "the memory: all that is trained", size=13)]
    parts += [words(500, 28, "Its entries, and which a document may use", size=16)]
    for entry in range(8):
        parts.append(words(637 + 34 * entry, 62, str(entry), "middle", 12))
    for row, ((name, own), colour) in enumerate(zip(SETS, COLOURS, strict=True)):
        y = 72 + 62 * row
        parts.append(words(500, y + 22, name, colour=colour))
        for entry in range(8):
            fill = colour if entry in own else OUT
            parts.append(box(624 + 34 * entry, y, 26, 30, fill, stroke=INK if entry in own else "#aaaaaa"))
    told = (
        "Filled: entries of the document (its allocation).",
        "A and B are alike, so SimSet lets them share entries 2 and 3.",
        "Leakage: activation on the empty ones, as a share of all.",
        "Inductive: alpha × leakage is added to the loss.",
        "Hard: the empty ones are multiplied by 0.",
    )
    parts += [words(500, 285 + 24 * line, text) for line, text in enumerate(told)]
    head = '<marker id="head" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
    head += f'<path d="M0,0 L6,3 L0,6 z" fill="{INK}"/></marker>'
    size = 'width="940" height="410" viewBox="0 0 940 410"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
        f'<title>A memory in a frozen model</title><defs>{head}</defs><rect width="940" height="410" fill="#ffffff"/>'
        + "\n".join(parts)
        + "</svg>\n"
    )


if __name__ == "__main__":
    (Path(__file__).parent / "terms.svg").write_text(drawing())
