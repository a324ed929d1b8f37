"""The style of explanations in HTML: one sheet, light and dark, whose hash the page's policy names.

Every level of the scale is a class, so that no element carries a style of its own, which a
strict policy would have to allow to strangers' texts too.
"""

from __future__ import annotations

import base64
import hashlib

from openmaas.explaining.rendering import colours

_SHEET = """
.omx{box-sizing:border-box;max-width:62rem;margin:0 auto;padding:1rem;background:var(--page);
color:var(--ink);font:1rem/1.6 system-ui,sans-serif;overflow-wrap:anywhere}
.omx *{box-sizing:border-box}
.omx h2{font-size:1.25rem;line-height:1.3;margin:0}
.omx h3{font-size:1rem;margin:1rem 0 .25rem}
.omx section+section{margin-top:2.5rem;padding-top:1.5rem;border-top:1px solid var(--line)}
.omx .faint,.omx dt,.omx .role{color:var(--faint)}
.omx .faint{margin:.25rem 0;font-size:.875rem}
.omx .legend{display:flex;flex-wrap:wrap;gap:.25rem .75rem;align-items:center;margin:.75rem 0;
font-size:.875rem}
.omx .scale{display:flex;border:1px solid var(--line)}
.omx .scale i{display:block;width:.8rem;height:1rem}
.omx .text{margin:1rem 0;white-space:pre-wrap;line-height:1.9;unicode-bidi:isolate}
.omx .message{margin:1rem 0;padding-left:.75rem;border-left:3px solid var(--line)}
.omx .message .text{margin:0}
.omx .role{font-size:.875rem;font-weight:600}
.omx .text span{padding:.15em 0;border-radius:.15em;-webkit-box-decoration-break:clone;
box-decoration-break:clone}
.omx .rows{list-style:none;margin:1rem 0;padding:0;font-size:.9375rem}
.omx .rows li{display:grid;grid-template-columns:5em minmax(0,1fr) minmax(0,1.4fr) 11.5em;
gap:0 .75rem;align-items:center;padding:.15rem 0}
.omx .rows b,.omx .rows small{font-variant-numeric:tabular-nums;white-space:nowrap}
.omx .rows b{text-align:right;font-weight:600}
.omx .rows .name{text-align:left}
.omx .rows small{color:var(--faint);font-size:.8125rem}
.omx .bar{display:block;width:100%;height:1.1rem}
.omx .axis{stroke:var(--faint)}
.omx .whisker{stroke:var(--ink)}
.omx .axis,.omx .whisker{vector-effect:non-scaling-stroke;stroke-width:1}
.omx .images{display:flex;flex-wrap:wrap;gap:1rem;margin:1rem 0}
.omx figure{margin:0;flex:1 1 16rem;max-width:28rem}
.omx figure svg{display:block;width:100%;height:auto;max-height:32rem;border:1px solid var(--line)}
.omx figcaption{color:var(--faint);font-size:.875rem}
.omx .grid text{font:.3px sans-serif;text-anchor:middle}
.omx dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.15rem 1rem;margin:1rem 0;
font-size:.875rem}
.omx dd{margin:0}
.omx footer{margin-top:2rem;padding-top:.5rem;border-top:1px solid var(--line)}
.omx footer ul{margin:1rem 0;padding-left:1.25rem;font-size:.875rem}
@media (max-width:40rem){
.omx .rows li{grid-template-columns:5em minmax(0,1fr);padding:.35rem 0}
.omx .rows .name{grid-column:1/-1}
.omx .rows li>small{grid-column:1/-1}
.omx .rows b{text-align:left}
}
"""


def _colours(dark: bool) -> str:
    look = colours.look(dark)
    rules = [
        f".omx{{color-scheme:{'dark' if dark else 'light'};--page:{look.page};--ink:{look.ink};"
        f"--faint:{look.faint};--line:{look.line}}}",
        f".omx .z{{fill:{look.page}}}",
        f".omx text.z{{fill:{look.faint}}}",
    ]
    for step in range(-colours.LEVELS, colours.LEVELS + 1):
        if step:
            behind = colours.background(step, dark)
            text, name = colours.ink(behind), level(step)
            rules.append(f".omx .{name}{{background:{behind};color:{text};fill:{behind}}}")
            rules.append(f".omx text.{name}{{background:none;fill:{text}}}")
    return "\n".join(rules)


def level(step: int) -> str:
    """The class of a level: p1 to p10 for, n1 to n10 against, z nothing."""
    return "z" if not step else f"{'p' if step > 0 else 'n'}{abs(step)}"


STYLE = (
    f"{_SHEET}{_colours(False)}\n@media (prefers-color-scheme:dark){{\n{_colours(True)}\n"
    f"html{{background:{colours.look(True).page}}}\n}}\n"
)
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
"""A Content-Security-Policy under which a page is shown as it is; nothing runs or loads."""
