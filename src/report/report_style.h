// The page's looks. Colours of series: Okabe and Ito's palette, Color Universal Design, 2008; lighter ones of the same hues
// on dark ground.
#pragma once

namespace kvant {

inline constexpr const char* kReportStyle = R"(
:root{color-scheme:light dark;--bg:#fff;--fg:#1c2126;--soft:#5a6470;--line:#d5dae0;--band:#f4f6f8;
--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#b4568f;--s4:#b98300;--s5:#3a9bd9;--s6:#7a4a1e;--s7:#555f6b}
@media(prefers-color-scheme:dark){:root{--bg:#14181c;--fg:#e3e7ea;--soft:#9aa5b1;--line:#39424c;--band:#1d2329;
--s0:#56b4e9;--s1:#f28e4b;--s2:#2fc79b;--s3:#e08fc0;--s4:#e6b422;--s5:#9ad0f5;--s6:#c99a6b;--s7:#aab4bf}}
*{box-sizing:border-box}
body{font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;margin:0 auto;max-width:58em;
padding:1.5em 1em 4em;color:var(--fg);background:var(--bg);overflow-wrap:anywhere}
h1{font-size:1.8em;line-height:1.2;margin:0 0 .3em}h2{font-size:1.35em;margin:2.2em 0 .6em;padding-top:.5em;
border-top:1px solid var(--line)}h3{font-size:1.1em;margin:1.6em 0 .4em}h4{font-size:1em;margin:1.4em 0 .3em}
p,ul{margin:.5em 0}.lead{color:var(--soft)}.note{background:var(--band);border-left:4px solid var(--s1);padding:.5em .8em}
figure{margin:1em 0 1.6em}figcaption{color:var(--soft);font-size:.9em}
svg{max-width:100%;height:auto;display:block}svg text{font-family:inherit}
svg text:not([fill]){fill:var(--fg)}svg text.tick{fill:var(--soft)}
.narrow{display:none}.grid{stroke:var(--line);stroke-width:.6}.axis{stroke:var(--soft)}
.front{stroke:var(--soft);stroke-width:1.2;stroke-dasharray:5 4;fill:none}.label{paint-order:stroke;stroke:var(--bg);stroke-width:3px;stroke-linejoin:round}
.leader{stroke:var(--soft);stroke-width:.7}
.series{stroke:var(--c);stroke-width:1.8;stroke-linejoin:round}.mark{fill:var(--c);stroke:var(--bg);stroke-width:1}
.hollow{fill:var(--bg);stroke:var(--c);stroke-width:1.8}.part{fill:var(--c);stroke:var(--bg);stroke-width:1}
.unknown{fill:var(--band);stroke:var(--line)}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}
.s6{--c:var(--s6)}.s7{--c:var(--s7)}
.series.s1,.series.s5{stroke-dasharray:7 3}.series.s2,.series.s6{stroke-dasharray:2 3}.series.s3,.series.s7{stroke-dasharray:8 3 2 3}
line.series{stroke-dasharray:none}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2em 1.2em;padding:0;margin:.8em 0 .2em;font-size:.9em}
.legend li{display:flex;align-items:center;gap:.4em}.legend svg{flex:none}
.grids{display:grid;grid-template-columns:1fr 1fr;gap:0 1em}.grids figure{margin:.4em 0}
.scroll{overflow-x:auto;margin:.8em 0}table{border-collapse:collapse;font-size:.86em;overflow-wrap:normal}
th,td{padding:.32em .6em;text-align:left;border-bottom:1px solid var(--line);white-space:nowrap}
td:not(.number){white-space:normal;min-width:8em}thead th{border-bottom:2px solid var(--soft);vertical-align:bottom;white-space:normal}
.number{text-align:right;font-variant-numeric:tabular-nums}tbody tr:nth-child(even){background:var(--band)}
details{margin:.4em 0}summary{cursor:pointer;color:var(--s0);font-size:.9em}
footer{margin-top:3em;color:var(--soft);font-size:.85em}
@media(max-width:640px){body{padding:1em .8em 3em;font-size:15px}.wide{display:none}.narrow{display:block}
.grids{grid-template-columns:1fr}h1{font-size:1.5em}}
@media print{:root{color-scheme:light;--bg:#fff;--fg:#000;--soft:#444;--line:#bbb;--band:#f4f4f4;--s0:#0072b2;--s1:#d55e00;
--s2:#009e73;--s3:#b4568f;--s4:#b98300;--s5:#3a9bd9;--s6:#7a4a1e;--s7:#555f6b}
body{max-width:none;padding:0;font-size:10pt}.wide{display:block}.narrow{display:none}.wide,tr,li{break-inside:avoid}.legend,.wide{break-after:avoid}
h2,h3,h4{break-after:avoid}.scroll{overflow:visible}table{font-size:7.5pt}th,td{padding:.2em .35em;white-space:normal}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
)";

// Folded tables are printed unfolded. The page needs no script otherwise.
inline constexpr const char* kReportScript =
    "addEventListener('beforeprint',()=>document.querySelectorAll('details').forEach(d=>d.open=true))";

}  // namespace kvant
