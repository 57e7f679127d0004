/**
 * Who is signed in. The tokens live in this browser tab alone (sessionStorage) and are renewed before they end; a
 * duplicated tab shares the new ones over a BroadcastChannel, because each refresh token works only once.
 */
import { text } from "./operations";
import { createStore } from "./store";

const KEY = "headai.session";
const RENEW_MS_BEFORE_END = 60_000;
const RETRY_MS = 10_000;

export const ENDPOINT = "/graphql";

export interface Session {
  username: string;
  displayName: string;
  accessToken: string;
  accessTokenExpiresAt: string;
  refreshToken: string | null;
}

interface Tokens {
  accessToken: string;
  accessTokenExpiresAt: string;
  refreshToken: string | null;
}

interface UserError {
  message: string;
  retryAfter?: string | null;
}

interface Payload {
  errors: UserError[];
  tokens?: Tokens | null;
  viewer?: { user: { username: string; displayName: string } | null } | null;
}

/** The server answered, and the answer is no; the message is fit to show. */
export class Refused extends Error {}

export const session = createStore<Session | null>(stored());
/** Why somebody who was signed in no longer is. */
export const farewell = createStore<string | null>(null);

const channel = new BroadcastChannel(KEY);
let renewal: Promise<void> | null = null;
let timer: ReturnType<typeof setTimeout> | undefined;

channel.onmessage = ({ data }: MessageEvent<{ old: string; tokens: Tokens }>) => {
  const current = session.get();
  if (current !== null && current.refreshToken === data.old) keep({ ...current, ...data.tokens });
};

function stored(): Session | null {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "null") as Session | null;
  } catch {
    return null;
  }
}

function keep(next: Session | null): void {
  if (next === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, JSON.stringify(next));
  session.set(next);
  scheduleRenewal();
}

/** Milliseconds until the access token ends. */
function remaining(current: Session): number {
  return Date.parse(current.accessTokenExpiresAt) - Date.now();
}

/** Ahead of the end by a minute and a bit that differs between tabs, so that they do not renew all at once. */
export function scheduleRenewal(): void {
  clearTimeout(timer);
  const current = session.get();
  if (current === null || current.refreshToken === null) return;
  const lead = Math.min(RENEW_MS_BEFORE_END, remaining(current) / 3) * (1 + Math.random() / 2);
  timer = setTimeout(() => void renew().catch(() => undefined), Math.max(remaining(current) - lead, RETRY_MS / 10));
}

async function ask(operation: string, input: object, accessToken?: string): Promise<Payload> {
  let response: Response;
  try {
    response = await fetch(ENDPOINT, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        accept: "application/json",
        ...(accessToken === undefined ? {} : { authorization: `Bearer ${accessToken}` }),
      },
      body: JSON.stringify({ query: text(operation), variables: { input } }),
    });
  } catch {
    throw new Error("The server does not answer. Is it running?");
  }
  const body = (await response.json().catch(() => null)) as {
    data?: Record<string, Payload | null> | null;
    errors?: { message: string }[];
  } | null;
  if (body?.errors?.[0] !== undefined) throw new Error(body.errors[0].message);
  const payload = Object.values(body?.data ?? {})[0];
  if (payload === null || payload === undefined) throw new Error(`The server answered ${response.status}.`);
  if (payload.errors.length > 0) throw new Refused(payload.errors.map(words).join(" "));
  return payload;
}

function words({ message, retryAfter }: UserError): string {
  const sentence = /[.!?]$/.test(message) ? message : `${message}.`;
  const found = /^PT(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?$/.exec(retryAfter ?? "");
  if (found === null) return sentence;
  const [hours, minutes, seconds] = found.slice(1).map((part) => Number(part ?? 0));
  const wait = Math.ceil((hours ?? 0) * 60 + (minutes ?? 0) + (seconds ?? 0) / 60);
  return `${sentence} Try again in ${wait} minute${wait === 1 ? "" : "s"}.`;
}

export async function signIn(username: string, password: string): Promise<void> {
  const { tokens, viewer } = await ask("Login", { username, password });
  if (!tokens) throw new Error("The server sent no tokens.");
  farewell.set(null);
  keep({
    username: viewer?.user?.username ?? username,
    displayName: viewer?.user?.displayName ?? username,
    accessToken: tokens.accessToken,
    accessTokenExpiresAt: tokens.accessTokenExpiresAt,
    refreshToken: tokens.refreshToken,
  });
}

/** Ends the session on the server too; whatever the server says, this page forgets it. */
export async function signOut(): Promise<void> {
  const current = session.get();
  keep(null);
  farewell.set(null);
  if (current !== null) await ask("Logout", { everywhere: false }, current.accessToken).catch(() => undefined);
}

/** New tokens. When the server refuses, the person is signed out and told why; other trouble is tried again. */
export function renew(): Promise<void> {
  renewal ??= exchange().finally(() => {
    renewal = null;
  });
  return renewal;
}

async function exchange(): Promise<void> {
  const before = session.get();
  if (before === null || before.refreshToken === null) return;
  try {
    const { tokens } = await ask("RefreshTokens", { refreshToken: before.refreshToken });
    if (!tokens) throw new Refused("The server sent no tokens.");
    if (session.get()?.refreshToken !== before.refreshToken) return;
    channel.postMessage({ old: before.refreshToken, tokens });
    keep({ ...before, ...tokens });
  } catch (error) {
    if (session.get()?.refreshToken !== before.refreshToken) return;
    if (error instanceof Refused) {
      keep(null);
      farewell.set(`Your session has ended: ${error.message}`);
    } else {
      timer = setTimeout(() => void renew().catch(() => undefined), RETRY_MS);
    }
    throw error;
  }
}

/** An access token that is good for a while yet, or null when nobody is signed in. */
export async function accessToken(): Promise<string | null> {
  const current = session.get();
  if (current !== null && remaining(current) < 5_000) await renew().catch(() => undefined);
  return session.get()?.accessToken ?? null;
}
