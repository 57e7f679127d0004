/**
 * What the person at this page has made last, by type, so that the operations can follow one another without copying
 * IDs: `$project` in the variables stands for the ID of the last project, `$run` for that of the last training run.
 * Only answers of mutations count; what others make never slips in.
 */
import { makerOf } from "./operations";
import { createStore } from "./store";

const KEY = "headai.made";
const GLOBAL_ID = /^([a-z]+)_[0-9a-f]{32}$/;
const PLACEHOLDER = /^\$([a-z]+)$/;

function stored(): Record<string, string> {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "{}") as Record<string, string>;
  } catch {
    return {};
  }
}

export const made = createStore<Record<string, string>>(stored());

/** Note the IDs in a mutation's answer; of several of one type the youngest counts (IDs sort by age). */
export function noteMade(data: unknown): void {
  const seen: Record<string, string> = {};
  const visit = (value: unknown): void => {
    if (typeof value === "string") {
      const type = GLOBAL_ID.exec(value)?.[1];
      if (type !== undefined && type in makerOf && value > (seen[type] ?? "")) seen[type] = value;
    } else if (value !== null && typeof value === "object") {
      Object.values(value).forEach(visit);
    }
  };
  visit(data);
  if (Object.keys(seen).length === 0) return;
  made.set({ ...made.get(), ...seen });
  sessionStorage.setItem(KEY, JSON.stringify(made.get()));
}

export function forgetMade(): void {
  made.set({});
  sessionStorage.removeItem(KEY);
}

/** The variables with every `$type` replaced. Throws an Error that says which step to run first. */
export function fillIn(variables: unknown): unknown {
  if (typeof variables === "string") {
    const type = PLACEHOLDER.exec(variables)?.[1];
    const maker = type === undefined ? undefined : makerOf[type];
    if (type === undefined || maker === undefined) return variables;
    const id = made.get()[type];
    if (id === undefined) {
      throw new Error(`$${type} stands for the one you made last, and there is none yet. Run ${maker} first, or write an ID.`);
    }
    return id;
  }
  if (Array.isArray(variables)) return variables.map(fillIn);
  if (variables !== null && typeof variables === "object") {
    return Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, fillIn(value)]));
  }
  return variables;
}
