import { defineConfig, type Plugin } from "vite";

/** The page's own script is on its way while what is in index.html is drawn, though it is run only then. */
const preload: Plugin = {
  name: "preload-page",
  transformIndexHtml: {
    order: "post",
    handler: (_, { bundle }) =>
      Object.values(bundle ?? {})
        .filter((file) => file.type === "chunk" && file.isDynamicEntry)
        .map((file) => ({ tag: "link", attrs: { rel: "modulepreload", href: `./${file.fileName}` }, injectTo: "head" as const })),
  },
};

// What is built depends on the sources and on package-lock.json only: no map, no date, no path.
export default defineConfig({
  base: "./",
  publicDir: "public",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  plugins: [preload],
  build: {
    outDir: "../dist",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
  },
});
