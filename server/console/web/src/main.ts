// What is in index.html is seen before the page's own script runs, which takes longer than drawing it.
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { show, stored } from "./stored";

show(stored());

const begin = () => void import("./page").then((page) => page.begin());

// A frame is drawn after what was asked for it; who looks at another tab gets none.
if (document.visibilityState === "visible") requestAnimationFrame(() => setTimeout(begin));
else begin();
