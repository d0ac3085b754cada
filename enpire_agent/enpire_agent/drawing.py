"""A chart as plain shapes, written as SVG for the page and as PNG for everything else.

Coordinates are pixels from the upper left corner. Colors are names of `PALETTE`, so that the page can show the same
drawing on a light and on a dark background. After Okabe and Ito (Color Universal Design, 2008): what has to be told
apart differs in lightness too, and no meaning rests on color alone.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from html import escape
from typing import Iterator, Sequence

# name -> color on a light and on a dark background
PALETTE = {
    'ink': ('#1b2230', '#e8ebf1'), 'soft': ('#586174', '#a3adbf'), 'line': ('#dfe3ea', '#343c4b'),
    'card': ('#ffffff', '#1a1f29'), 'page': ('#f5f6f8', '#11151c'), 'link': ('#0a5a99', '#74b9f5'),
    'kept': ('#0b6bb0', '#4fa3e3'), 'reverted': ('#c4501b', '#f0905f'), 'adopted': ('#00825f', '#37c79b'),
    'running': ('#7a8496', '#8993a5'),
    'SUCCESS': ('#0b6bb0', '#4fa3e3'), 'TIMEOUT': ('#eeb04c', '#e3ac4e'), 'FAILURE': ('#c4501b', '#e07a48'),
    'SAFETY_STOP': ('#8e3a7d', '#dd9fd2'), 'POLICY_ERROR': ('#3b4250', '#f4f5f8'),
    'RESET_FAILED': ('#687385', '#a9b3c4'), 'ABORTED': ('#ccd2dc', '#77839a'), 'INVALID': ('#0d1016', '#b6bdca'),
    'time-running': ('#0b6bb0', '#4fa3e3'), 'time-resetting': ('#8ccaf2', '#a9d5f7'),
    'time-training': ('#00825f', '#37c79b'), 'time-thinking': ('#eeb04c', '#e3ac4e'),
    'time-held': ('#c4501b', '#e07a48'), 'time-other': ('#ccd2dc', '#77839a'),
    'time-trials': ('#0b6bb0', '#4fa3e3'),
    'on-dark': ('#ffffff', '#11151c'), 'on-light': ('#1b2230', '#11151c'),
}
SHAPES = ('circle', 'ring', 'cross', 'diamond', 'square', 'whisker')
_STROKED = ('cross', 'ring', 'whisker')
_CHARACTER_WIDTH = 0.57   # em, of an ordinary letter of a sans-serif font
_PNG_SCALE = 2            # pixels of the PNG for a pixel of the drawing


def text_width(text: str, size: float) -> float:
    """Estimated width in pixels of a text of `size` pixels."""
    return _CHARACTER_WIDTH * size * len(text)


def shortened(text: str, width: float, size: float) -> str:
    """The text, cut with an ellipsis to fit into `width` pixels; '' when not even a word would."""
    room = int(width / (_CHARACTER_WIDTH * size))
    if len(text) <= room:
        return text
    return text[:room - 1].rstrip(' ,;') + '…' if room >= 5 else ''


def css_colors(dark: bool) -> str:
    """The palette as CSS custom properties."""
    return ' '.join(f'--{name}: {colors[dark]};' for name, colors in PALETTE.items())


def css_classes() -> str:
    """What the classes in `Drawing.svg` stand for."""
    return '\n'.join(f'.f-{name} {{ fill: var(--{name}); }} .s-{name} {{ stroke: var(--{name}); }}'
                     for name in PALETTE)


@dataclass
class Drawing:
    """Shapes in the order in which they are painted. `title`, `description`: the text alternative."""

    width: float
    height: float
    title: str
    description: str
    shapes: list[tuple] = field(default_factory=list)

    def segments(self, segments: Sequence[tuple[float, float, float, float]], color: str, width: float = 1.0, *,
                 opacity: float = 1.0, dashed: bool = False) -> None:
        """Straight lines (x1, y1, x2, y2), as one shape."""
        if segments:
            self.shapes.append(('path', [[('M', x1, y1), ('L', x2, y2)] for x1, y1, x2, y2 in segments], color,
                                width, opacity, dashed))

    def line(self, points: Sequence[tuple[float, float]], color: str, width: float = 1.0, *, opacity: float = 1.0,
             dashed: bool = False) -> None:
        """A line through points."""
        if len(points) > 1:
            steps = [('M' if k == 0 else 'L', x, y) for k, (x, y) in enumerate(points)]
            self.shapes.append(('path', [steps], color, width, opacity, dashed))

    def curve(self, x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1.0, *,
              opacity: float = 1.0, dashed: bool = False) -> None:
        """A curve that leaves and arrives horizontally."""
        middle = (x1 + x2) / 2
        self.shapes.append(('path', [[('M', x1, y1), ('C', middle, y1, middle, y2, x2, y2)]], color, width, opacity,
                            dashed))

    def rectangle(self, x: float, y: float, width: float, height: float, color: str, *, tip: str = '') -> None:
        self.shapes.append(('rectangle', x, y, width, height, color, tip))

    def mark(self, x: float, y: float, shape: str, color: str, size: float = 8.0, *, tip: str = '',
             link: str = '') -> None:
        """One of SHAPES, `size` pixels wide. tip: shown under the pointer; link: an address within the page."""
        self.shapes.append(('marks', [(x, y)], shape, color, size, tip, link))

    def marks(self, points: Sequence[tuple[float, float]], shape: str, color: str, size: float) -> None:
        """Many equal marks, as one shape."""
        if points:
            self.shapes.append(('marks', list(points), shape, color, size, '', ''))

    def text(self, x: float, y: float, text: str, color: str = 'ink', size: float = 12.0, *, anchor: str = 'start',
             bold: bool = False) -> None:
        """A text on the base line y; anchor: "start", "middle" or "end"."""
        if text:
            self.shapes.append(('text', x, y, text, color, size, anchor, bold))

    def legend(self, x: float, y: float, entries: Sequence[tuple[str, str, str]], size: float = 12.0) -> float:
        """Entries (shape, color, text) from x on, wrapped; returns the height that they take."""
        left, top = x, y
        for shape, color, text in entries:
            width = 18 + text_width(text, size) + 16
            if x > left and x + width > self.width:
                x, y = left, y + size + 8
            self.mark(x + 6, y + size / 2, shape, color, 9)
            self.text(x + 18, y + size - 1.5, text, 'soft', size)
            x += width
        return y - top + size + 8

    # --- SVG ---

    def svg(self, name: str) -> str:
        """An inline SVG element whose colors are the page's; `name` is its class."""
        label = escape(f'{self.title}. {self.description}', quote=True)
        return (f'<svg class="{name}" role="img" aria-label="{label}" viewBox="0 0 {_n(self.width)} '
                f'{_n(self.height)}" xmlns="http://www.w3.org/2000/svg">'
                + ''.join(self._svg_shape(shape) for shape in self.shapes) + '</svg>')

    def _svg_shape(self, shape: tuple) -> str:
        kind, *values = shape
        return getattr(self, f'_svg_{kind}')(*values)

    def _svg_path(self, parts, color, width, opacity, dashed) -> str:
        data = ''.join(step[0] + ' '.join(_n(value) for value in step[1:]) for part in parts for step in part)
        return (f'<path class="s-{color}" fill="none" stroke-width="{_n(width)}"'
                + (f' opacity="{_n(opacity)}"' if opacity < 1 else '')
                + (' stroke-dasharray="4 4"' if dashed else '') + f' d="{data}"/>')

    def _svg_rectangle(self, x, y, width, height, color, tip) -> str:
        return (f'<rect class="f-{color}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="2">'
                f'{_svg_tip(tip)}</rect>')

    def _svg_marks(self, points, shape, color, size, tip, link) -> str:
        data = ''.join(_svg_outline(outline) for x, y in points for outline in _outlines(shape, x, y, size))
        if shape in _STROKED:
            style = f'class="s-{color} f-card" stroke-width="{_n(max(1.0, size / 5))}"'
        else:
            style = f'class="f-{color}"'
        mark = f'<path {style} d="{data}">{_svg_tip(tip)}</path>'
        return f'<a href="{escape(link, quote=True)}" tabindex="-1">{mark}</a>' if link else mark

    def _svg_text(self, x, y, text, color, size, anchor, bold) -> str:
        return (f'<text class="f-{color}" x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}"'
                + (f' text-anchor="{anchor}"' if anchor != 'start' else '') + (' font-weight="600"' if bold else '')
                + f'>{escape(text)}</text>')

    # --- PNG ---

    def png(self) -> bytes:
        """The drawing below its title, on white, twice as large, as PNG."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        top, side = 44, 16
        width, height = self.width + 2 * side, top + self.height + side
        figure = Figure(figsize=(width / 100, height / 100), dpi=100 * _PNG_SCALE, facecolor='white')
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(-side, width - side)
        axes.set_ylim(height - top, -top)
        axes.axis('off')
        title = ('text', 4, 14 - top / 2, self.title, 'ink', 17, 'start', True)
        for order, (kind, *values) in enumerate([title, *self.shapes]):
            for artist in getattr(self, f'_png_{kind}')(*values):
                artist.set_zorder(order)
                artist.set_clip_on(False)
                axes.add_artist(artist)
        image = io.BytesIO()
        figure.savefig(image, format='png')
        return image.getvalue()

    def _png_path(self, parts, color, width, opacity, dashed) -> Iterator:
        from matplotlib.patches import PathPatch

        yield PathPatch(_matplotlib_path(parts), fill=False, edgecolor=PALETTE[color][0], linewidth=width * 0.72,
                        alpha=opacity, linestyle=(0, (4, 4)) if dashed else 'solid', capstyle='butt')

    def _png_rectangle(self, x, y, width, height, color, tip) -> Iterator:
        from matplotlib.patches import Rectangle

        yield Rectangle((x, y), width, height, facecolor=PALETTE[color][0], linewidth=0)

    def _png_marks(self, points, shape, color, size, tip, link) -> Iterator:
        from matplotlib.patches import PathPatch

        parts = [outline for x, y in points for outline in _outlines(shape, x, y, size)]
        color = PALETTE[color][0]
        if shape in _STROKED:
            yield PathPatch(_matplotlib_path(parts), facecolor='white', edgecolor=color,
                            linewidth=0.72 * max(1.0, size / 5), fill=shape == 'ring')
        else:
            yield PathPatch(_matplotlib_path(parts), facecolor=color, linewidth=0)

    def _png_text(self, x, y, text, color, size, anchor, bold) -> Iterator:
        from matplotlib.patheffects import withStroke
        from matplotlib.text import Text

        halo = [] if color.startswith('on-') else [withStroke(linewidth=2.5, foreground='white')]
        yield Text(x, y, text.replace('$', r'\$'), color=PALETTE[color][0], fontsize=size * 0.72 * 0.94,
                   horizontalalignment={'start': 'left', 'middle': 'center', 'end': 'right'}[anchor],
                   verticalalignment='baseline', fontweight='bold' if bold else 'normal', fontfamily='DejaVu Sans',
                   path_effects=halo)


def _outlines(shape: str, x: float, y: float, size: float) -> list[list[tuple]]:
    """Outlines of a mark as path steps."""
    r = size / 2
    if shape in ('circle', 'ring'):
        k = 0.5523 * r     # control points of a quarter circle
        return [[('M', x - r, y), ('C', x - r, y - k, x - k, y - r, x, y - r),
                 ('C', x + k, y - r, x + r, y - k, x + r, y),
                 ('C', x + r, y + k, x + k, y + r, x, y + r), ('C', x - k, y + r, x - r, y + k, x - r, y), ('Z',)]]
    if shape == 'cross':
        r *= 0.8
        return [[('M', x - r, y - r), ('L', x + r, y + r)], [('M', x - r, y + r), ('L', x + r, y - r)]]
    if shape == 'whisker':
        return [[('M', x, y - r), ('L', x, y + r)]]
    if shape == 'diamond':
        r *= 1.2
        return [[('M', x - r, y), ('L', x, y - r), ('L', x + r, y), ('L', x, y + r), ('Z',)]]
    r *= 0.9
    return [[('M', x - r, y - r), ('L', x + r, y - r), ('L', x + r, y + r), ('L', x - r, y + r), ('Z',)]]


def _svg_outline(outline: list[tuple]) -> str:
    return ''.join(step[0] + ' '.join(_n(value) for value in step[1:]) for step in outline)


def _matplotlib_path(parts: Sequence[Sequence[tuple]]):
    from matplotlib.path import Path

    points, codes = [], []
    for part in parts:
        for code, *values in part:
            pairs = list(zip(values[::2], values[1::2])) or [(0.0, 0.0)]
            points += pairs
            codes += {'M': [Path.MOVETO], 'L': [Path.LINETO], 'C': [Path.CURVE4] * 3, 'Z': [Path.CLOSEPOLY]}[code]
    return Path(points, codes)


def _svg_tip(text: str) -> str:
    return f'<title>{escape(text)}</title>' if text else ''


def _n(value: float) -> str:
    """A number as short as a drawing needs it."""
    return f'{value:.1f}'.removesuffix('.0')
