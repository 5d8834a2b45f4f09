"""How the page looks: light, dark, on a phone and on paper. Every colour is here.

Colours of charts are chosen so that they differ in lightness, too, and none is the only sign of anything. Text has a
contrast of 4.5 to 1 or more with what it stands on; a test computes it in a browser.
"""

from __future__ import annotations

_LIGHT = {
    "paper": "#ffffff",
    "panel": "#f4f6f8",
    "ink": "#1b1f24",
    "quiet": "#545d68",
    "rule": "#d3d9df",
    "link": "#0a559c",
    "stored": "#0a559c",
    "area": "#e1edf7",
    "copies": "#9a4a00",
    "unique": "#cfe3f5",
    "shared": "#fbe0c0",
    "same": "#b9c2cb",
    "hole": "#ffffff",
    "changed": "#c2540a",
    "added": "#0a6fb8",
    "removed": "#8b3a8b",
    "over": "#ffffff",
}
_DARK = {
    "paper": "#0f1419",
    "panel": "#182029",
    "ink": "#e6edf3",
    "quiet": "#a3adb8",
    "rule": "#36404b",
    "link": "#7cbcff",
    "stored": "#7cbcff",
    "area": "#14304b",
    "copies": "#f2ab68",
    "unique": "#1c4469",
    "shared": "#5c3c14",
    "same": "#56616d",
    "hole": "#0f1419",
    "changed": "#f08c45",
    "added": "#5eb1ef",
    "removed": "#d48ad4",
    "over": "#0f1419",
}


def _colours(scheme: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in scheme.items())


STYLE = (
    f":root{{color-scheme:light dark;{_colours(_LIGHT)}}}\n"
    f"@media (prefers-color-scheme:dark){{:root{{{_colours(_DARK)}}}}}\n"
    f"@media print{{:root{{color-scheme:light;{_colours(_LIGHT)}}}}}\n"
    """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","Liberation Sans",Arial,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
header,nav,main,footer{max-width:1080px;margin:0 auto;padding:0 32px}
header{padding-top:40px}
h1{font-size:28px;line-height:1.2;margin:0 0 4px;font-weight:650;letter-spacing:-.01em}
h2{font-size:20px;line-height:1.3;margin:0 0 4px;font-weight:650}
p{margin:0 0 12px;max-width:72ch}
.quiet,footer{color:var(--quiet)}
a{color:var(--link)}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:2px 20px;margin:12px 0 0;padding:0}
nav a{display:inline-block;padding:4px 0}
section{margin:44px 0 0}
footer{margin-top:48px;padding-top:16px;padding-bottom:40px;font-size:14px}
:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:2px}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:1px;margin:28px 0 0;background:var(--rule);
border:1px solid var(--rule);border-radius:8px;overflow:hidden}
.tiles div{background:var(--paper);padding:14px 16px 12px;display:flex;flex-direction:column-reverse;
justify-content:flex-end}
.tiles dt{font-size:14px;color:var(--quiet);line-height:1.35}
.tiles dd{margin:0;font-size:24px;line-height:1.25;font-weight:600;letter-spacing:-.01em}
.tiles small{display:block;font-size:13px}
figure{margin:12px 0 0}
.chart{display:block;overflow:visible}
.chart text{font-size:13px;fill:var(--ink)}
.chart text.over{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.chart .mark{fill:var(--quiet);font-size:12px}
.chart .head{font-weight:600}
.chart line.grid{stroke:var(--rule);stroke-width:1}
.chart line.axis{stroke:var(--quiet);stroke-width:1}
.chart .area{fill:var(--area)}
.chart .line{fill:none;stroke-width:2;vector-effect:non-scaling-stroke}
.chart .line.stored{stroke:var(--stored)}
.chart .line.copies{stroke:var(--copies);stroke-dasharray:6 4}
.chart text.stored{fill:var(--stored);font-weight:600}
.chart text.copies{fill:var(--copies);font-weight:600}
.chart rect.dedup{fill:var(--stored)}
.chart rect.compression{fill:var(--copies)}
.treemap rect{stroke:var(--paper);stroke-width:2}
.treemap rect.unique,.swatch rect.unique{stroke:var(--stored);stroke-width:2.5}
rect.unique{fill:var(--unique)}
rect.shared{fill:var(--shared)}
.lineage .link{fill:none;stroke:var(--quiet);stroke-width:1.5}
.lineage circle{fill:var(--stored);stroke:var(--paper);stroke-width:1.5}
.lineage circle.missing{fill:var(--paper);stroke:var(--quiet);stroke-dasharray:2 2}
.patterns{position:absolute}
pattern .changed{fill:var(--changed)}
pattern .added{fill:var(--added)}
pattern .removed{fill:var(--removed)}
pattern .over{stroke:var(--over);stroke-width:1.2;fill:none}
.same{fill:var(--same)}
.hole{fill:var(--hole);stroke:var(--rule)}
.sample{fill:none;stroke:var(--quiet)}
.blocks{overflow:hidden}
.legend{display:flex;flex-wrap:wrap;gap:4px 24px;list-style:none;margin:12px 0 0;padding:0;font-size:14px}
.legend li{display:flex;align-items:center;gap:8px}
.legend .swatch{flex:none}
.scroll{overflow:auto;max-height:560px;border:1px solid var(--rule);border-radius:8px}
figure .scroll{padding:8px 12px}
details{margin:12px 0 0}
summary{cursor:pointer;color:var(--link);width:max-content;max-width:100%;font-size:14px;padding:4px 0}
details .scroll{margin-top:4px;max-height:320px}
table{border-collapse:collapse;font-size:14px;line-height:1.4;width:100%}
caption{text-align:left;padding:8px 12px;color:var(--quiet)}
th,td{padding:6px 12px;text-align:left;vertical-align:top;white-space:nowrap;border-top:1px solid var(--rule)}
thead th{position:sticky;top:0;background:var(--panel);border-top:0;font-weight:600;z-index:1}
tbody th{position:sticky;left:0;background:var(--paper);font-weight:600;white-space:normal;min-width:8em;max-width:16em}
.number{text-align:right}
td.long{white-space:normal;min-width:24em;max-width:48em}
code{font:13px/1.4 ui-monospace,"DejaVu Sans Mono","Liberation Mono",monospace}
th button{all:unset;cursor:pointer;display:block;width:100%;text-align:inherit;font:inherit}
th button::after{content:"\\2195";color:var(--quiet);margin-left:6px;font-weight:400}
th[aria-sort=ascending] button::after{content:"\\2191";color:var(--ink)}
th[aria-sort=descending] button::after{content:"\\2193";color:var(--ink)}
.narrow{display:none}
@media (max-width:760px){
.chart .wide{display:none}
.narrow{display:inline}
}
@media (max-width:640px){
header,nav,main,footer{padding-left:16px;padding-right:16px}
header{padding-top:24px}
h1{font-size:24px}
.tiles{grid-template-columns:repeat(2,1fr)}
.tiles dd{font-size:21px}
section{margin-top:36px}
tbody th{max-width:36vw}
}
@media print{
header,main,footer{padding-left:0;padding-right:0}
body{font-size:12px}
nav,summary{display:none}
.scroll,details .scroll{max-height:none;overflow:visible;border:0;padding:0}
figure,.tiles,tr{break-inside:avoid}
h2{break-after:avoid}
thead th,tbody th{position:static}
table{font-size:8px}
th,td,tbody th{padding:2px 3px;white-space:normal;overflow-wrap:normal;min-width:0}
td.long,tbody th,code{overflow-wrap:anywhere;min-width:7em}
.number{white-space:nowrap}
thead th{white-space:normal}
code{font-size:8px}
th button::after{content:""}
figure.tall{break-inside:auto}
}
"""
)
