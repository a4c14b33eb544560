// What is around every page: navigation, who is signed in, and whether the server is there.
import { Component, type ComponentChildren, type ComponentType } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Explore } from "./explore";
import { Nodes } from "./nodes";
import { Now } from "./now";
import { Releases } from "./releases";
import { href, route } from "./route";
import { Snapshots } from "./snapshots";
import { away, look, may, mustSignIn, over, session, signIn, signOut } from "./session";
import { useSignal } from "./signal";
import { choose, theme, type Theme } from "./theme";
import { Empty, Icon, Loading } from "./ui";

interface Page {
  name: string;
  title: string;
  icon: "now" | "explore" | "snapshots" | "releases" | "nodes";
  scopes: string[];
  view: ComponentType;
}

const pages: Page[] = [
  { name: "now", title: "Now", icon: "now", scopes: ["live", "publish", "admin"], view: Now },
  { name: "explore", title: "Explore", icon: "explore", scopes: ["query"], view: Explore },
  { name: "snapshots", title: "Snapshots", icon: "snapshots", scopes: ["publish", "admin"], view: Snapshots },
  { name: "releases", title: "Releases", icon: "releases", scopes: ["publish", "admin", "live"], view: Releases },
  { name: "nodes", title: "Nodes", icon: "nodes", scopes: ["live", "publish", "admin"], view: Nodes },
];

export function App() {
  const who = useSignal(session);
  const trouble = useSignal(away);
  const at = useSignal(route);
  const main = useRef<HTMLElement>(null);
  const page = pages.find((p) => p.name === at.page);
  const first = useRef(true);
  useEffect(() => void look(), []);
  useEffect(() => {
    if (!trouble) return;
    const timer = setInterval(() => void look(), 3000);
    return () => clearInterval(timer);
  }, [trouble]);
  useEffect(() => {
    document.title = `${page?.title ?? "Not found"} · Tandem`;
    if (!first.current) main.current?.focus();
    first.current = false;
    scrollTo(0, 0);
  }, [page]);

  if (!who) return trouble ? <Away text={trouble} /> : <Opening />;
  if (mustSignIn(who)) return <SignIn why={who.why ?? ""} />;
  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(e) => {
          e.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to the page
      </a>
      <header class="bar">
        <a class="brand" href={href("now")} aria-label="Tandem, to the page Now">
          <Mark />
          <span>Tandem</span>
        </a>
        <nav aria-label="Pages">
          {pages.map((p) => (
            <a key={p.name} href={href(p.name)} aria-current={p === page ? "page" : undefined}>
              <Icon name={p.icon} />
              <span>{p.title}</span>
            </a>
          ))}
        </nav>
        <div class="who">
          {who.caller && <span class="caller" title={`Scopes: ${who.scopes.join(", ")}`}>{who.caller}</span>}
          <a class="quiet" href="../docs/" aria-label="Documentation" title="Documentation">
            <Icon name="manual" />
          </a>
          <ThemeButton />
          {who.signIn === "token" && (
            <button type="button" class="quiet" aria-label="Sign out" title="Sign out" onClick={() => void signOut()}>
              <Icon name="out" />
            </button>
          )}
        </div>
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        {trouble && (
          <div class="trouble bad" role="alert">
            <strong>{trouble}</strong>
            <p class="muted">The page tries again by itself.</p>
          </div>
        )}
        {!page ? (
          <Empty title={`There is no page ${at.page.slice(0, 60)}`}>
            <a href={href("now")}>To the page Now</a>
          </Empty>
        ) : !may(...page.scopes) ? (
          <Empty title="This token may not look at this page">
            It has the scopes {who.scopes.join(", ")}; the page {page.title} needs {page.scopes.join(" or ")}. Sign out, and sign in with another one.
          </Empty>
        ) : (
          <Boundary key={page.name}>
            <page.view />
          </Boundary>
        )}
      </main>
    </>
  );
}

export function Mark() {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <circle cx="10.5" cy="20" r="5.4" />
      <circle cx="21.5" cy="20" r="5.4" />
      <path d="M8 9.5h16" />
    </svg>
  );
}

function ThemeButton() {
  const now = useSignal(theme);
  const next: Record<Theme, Theme> = { auto: "light", light: "dark", dark: "auto" };
  const text = { auto: "Colours: as the system has them", light: "Colours: light", dark: "Colours: dark" }[now];
  return (
    <button type="button" class="quiet" title={text} aria-label={`${text}; change`} onClick={() => choose(next[now])}>
      <Icon name={now === "auto" ? "auto" : now === "light" ? "sun" : "moon"} />
    </button>
  );
}

/** Keeps a defect of a page from taking the others with it. */
class Boundary extends Component<{ children: ComponentChildren }, { error: string }> {
  state = { error: "" };

  componentDidCatch(e: unknown) {
    console.error(e);
    this.setState({ error: e instanceof Error ? e.message : String(e) });
  }

  render() {
    if (!this.state.error) return this.props.children;
    return (
      <div class="trouble bad" role="alert">
        <strong>This page cannot show what it was told</strong>
        <p>{this.state.error}</p>
        <p class="muted">That is a defect of the console. The command line tells the same: tandem status, tandem snapshot, tandem query.</p>
        <button type="button" onClick={() => this.setState({ error: "" })}>
          Try again
        </button>
      </div>
    );
  }
}

/** What is there before the server has said who is signed in. */
function Opening() {
  return (
    <>
      <header class="bar">
        <span class="brand">
          <Mark />
          <span>Tandem</span>
        </span>
      </header>
      <main aria-busy="true">
        <Loading what="the page" lines={4} />
      </main>
    </>
  );
}

function Away({ text }: { text: string }) {
  return (
    <main class="alone">
      <Mark />
      <h1>Tandem</h1>
      <div class="trouble bad" role="alert">
        <strong>{text}</strong>
        <p class="muted">Look whether the process runs, and what its log says. The page tries again by itself.</p>
      </div>
    </main>
  );
}

function SignIn({ why }: { why: string }) {
  const ended = useSignal(over);
  const [token, setToken] = useState("");
  const [wrong, setWrong] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (e: Event) => {
    e.preventDefault();
    setBusy(true);
    setWrong(await signIn(token.trim()));
    setBusy(false);
  };
  const said = wrong || (ended ? `The session is over: ${ended}.` : why);
  return (
    <main class="alone">
      <Mark />
      <h1>Sign in to Tandem</h1>
      <form onSubmit={(e) => void submit(e)}>
        <label for="token">Token</label>
        <input
          id="token"
          name="token"
          type="password"
          autocomplete="current-password"
          spellcheck={false}
          autoFocus
          required
          value={token}
          onInput={(e) => setToken(e.currentTarget.value)}
          aria-invalid={wrong !== ""}
          aria-describedby="token-help"
        />
        {said && (
          <p class="wrong" role="alert">
            {said}
          </p>
        )}
        <button type="submit" class="main" disabled={busy || token.trim() === ""}>
          {busy ? "Signing in" : "Sign in"}
        </button>
        <p id="token-help" class="muted">
          As <code>tandem token new</code> has printed it. What it may do here is what its scopes allow everywhere. The server keeps its hash only, for as long as the session is.
        </p>
      </form>
    </main>
  );
}
