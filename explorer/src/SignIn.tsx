/** The bar on top of the page: who is signed in, or the way in. */
import { useState, type FormEvent } from "react";

import { farewell, session, signIn, signOut } from "./session";
import { useStore } from "./store";

export function Bar() {
  const current = useStore(session);
  return (
    <header className="bar">
      <span className="bar-brand">
        <svg viewBox="0 0 32 32" aria-hidden>
          <rect width="32" height="32" rx="8" />
          <path d="M6 23 12 17l5 3 9-12" />
        </svg>
        Head AI
      </span>
      {current === null ? <SignInForm /> : <WhoIsHere displayName={current.displayName} username={current.username} />}
    </header>
  );
}

function SignInForm() {
  const goodbye = useStore(farewell);
  const [trouble, setTrouble] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = event.currentTarget;
    const fields = new FormData(form);
    setBusy(true);
    setTrouble(null);
    try {
      await signIn(String(fields.get("username")).trim(), String(fields.get("password")));
    } catch (error) {
      setTrouble(error instanceof Error ? error.message : String(error));
      setBusy(false);
      form.querySelector<HTMLInputElement>("[name=password]")?.select();
    }
  };

  return (
    <form className="bar-form" onSubmit={submit} aria-label="Sign in">
      {(trouble ?? goodbye) !== null && (
        <span className="bar-trouble" role="alert" title={trouble ?? goodbye ?? ""}>
          {trouble ?? goodbye}
        </span>
      )}
      <input name="username" aria-label="Username" placeholder="Username" autoComplete="username" autoCapitalize="none" spellCheck={false} required autoFocus />
      <input name="password" aria-label="Password" placeholder="Password" type="password" autoComplete="current-password" required />
      <button type="submit" className="bar-button" disabled={busy}>
        {busy ? "Signing in…" : "Sign in"}
      </button>
    </form>
  );
}

function WhoIsHere({ displayName, username }: { displayName: string; username: string }) {
  return (
    <div className="bar-person">
      <span className="bar-avatar" aria-hidden>
        {displayName.slice(0, 1).toUpperCase()}
      </span>
      <span title={username} data-testid="signed-in-as">
        {displayName}
      </span>
      <button type="button" className="bar-link" onClick={() => void signOut()}>
        Sign out
      </button>
    </div>
  );
}
