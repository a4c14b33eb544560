// Who is signed in.
import { signal, type Signal } from "./signal";

export interface Session {
  signIn: "token" | "certificate" | "none";
  caller: string;
  scopes: string[];
  until?: string;
  why?: string;
}

/** Null until the server has said. */
export const session: Signal<Session | null> = signal<Session | null>(null);
/** Why somebody has to sign in again; empty at first. */
export const over: Signal<string> = signal("");
/** Why the server cannot say who is signed in; empty if it can. */
export const away: Signal<string> = signal("");

async function ask(method: string, body?: unknown): Promise<Response> {
  return fetch("session", {
    method,
    credentials: "same-origin",
    cache: "no-store",
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
}

export async function look(): Promise<void> {
  try {
    const response = await ask("GET");
    if (!response.ok) throw new Error(((await response.json()) as { message?: string }).message ?? response.statusText);
    session.set((await response.json()) as Session);
    away.set("");
  } catch (e) {
    away.set(e instanceof TypeError ? "The server does not answer." : e instanceof Error ? e.message : String(e));
  }
}

/** Begins a session, and returns why not; empty if it has begun. */
export async function signIn(token: string): Promise<string> {
  let response: Response;
  try {
    response = await ask("POST", { token });
  } catch {
    return "The server does not answer.";
  }
  const said = (await response.json()) as Session & { message?: string };
  if (!response.ok) return said.message ?? response.statusText;
  over.set("");
  session.set(said);
  return "";
}

export async function signOut(): Promise<void> {
  try {
    await ask("DELETE");
  } finally {
    over.set("");
    session.set(session.value && { ...session.value, caller: "", scopes: [], until: undefined });
  }
}

/** Notes that a call was refused since nobody is signed in any more. */
export function sessionOver(why: string): void {
  if (session.value?.signIn !== "token" || !session.value.caller) return;
  over.set(why);
  session.set({ ...session.value, caller: "", scopes: [], until: undefined });
}

/** Whether whoever is signed in has one of the scopes. */
export const may = (...scopes: string[]): boolean => session.value?.scopes.some((s) => scopes.includes(s)) ?? false;

/** Whether a token has to be asked for. */
export const mustSignIn = (s: Session): boolean => s.signIn === "token" && s.caller === "";
