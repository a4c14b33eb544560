import { render } from "preact";
import { App } from "./app";

export function begin(): void {
  render(<App />, document.getElementById("page")!);
}
