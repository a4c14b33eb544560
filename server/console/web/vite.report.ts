import { defineConfig } from "vite";

// The script and the style of a report that stands by itself, which server/reportpage puts into each: one file
// of each kind, that asks for no other.
export default defineConfig({
  publicDir: false,
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../../reportpage/dist",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    reportCompressedSize: false,
    lib: { entry: "src/report.tsx", formats: ["es"], fileName: () => "report.js", cssFileName: "report" },
  },
});
