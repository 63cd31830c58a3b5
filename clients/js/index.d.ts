/** The place of a publication in the order of all publications. Keep it as it is: only the server compares positions. */
export interface Position {
  epoch: string;
  offset: number;
}

export interface Publication<T = unknown> {
  data: T;
  /** `null` if the policy of the channel has no positions. */
  position: Position | null;
  /** Whether it was published before this subscription went live. */
  replayed: boolean;
}

export interface Recovery {
  /** Whether all that was missed follows; `null` if nothing was asked for. */
  recovered: boolean | null;
  /** Why not. */
  reason: string | null;
  /** From here on the channel is live. */
  position: Position;
  /** How many past publications follow at most: the application may withhold some. */
  publications: number;
}

export interface SubscribeOptions {
  /** The first subscribe asks for so many of the newest publications. Of a channel without a history, each asks for the retained one. */
  last?: number;
  /** The first subscribe asks for all publications since this time, in Unix milliseconds. */
  since?: number;
  /** A position that an earlier visit has kept. */
  position?: Position | null;
  /** Data for the application, an object. */
  data?: Record<string, unknown>;
  waitForAuth?: boolean;
  priority?: number;
  /** Something was missed that the server can no longer give. */
  onGap?: (recovery: Recovery) => void;
}

export interface Room<T = unknown> extends AsyncIterable<Publication<T>> {
  readonly name: string;
  readonly position: Position | null;
  recoveries(): AsyncIterable<Recovery>;
  end(): void;
}

export interface Member<I = unknown> {
  /** `null` for a client without a user. */
  user: string | number | null;
  info?: I;
  /** Since when it has been there, in Unix milliseconds. */
  since: number;
  /** The socket ids of its connections, at most 100. Members that an event has brought have none here. */
  connections?: string[];
}

export interface Presence<I = unknown> extends AsyncIterable<Map<string | number, Member<I>>> {
  readonly members: Map<string | number, Member<I>>;
  readonly count: number;
  /** Whether `members` has all of them: the events of a large channel leave changes out. */
  readonly isComplete: boolean;
  /** Why the list could not be fetched. */
  readonly error: Error | null;
  refresh(): Promise<void>;
  end(): void;
}

export interface Will {
  channel: string;
  data?: unknown;
  /** Milliseconds from the end of the connection to the publication. */
  delayMs?: number;
  /** A name by which a later connection of this client is known: a random text that the client keeps. */
  session?: string;
  /** Whether it is to be the retained publication of the channel. */
  retain?: boolean;
}

export interface History<T = unknown> {
  position: Position;
  /** For `recover`: whether all publications after the position are known. */
  recovered?: boolean;
  reason?: string;
  /** `limit`, or the size of an answer, has left publications out. */
  more?: boolean;
  /** With `more`, for `recover`: ask again with this offset, in place of that of the last publication. */
  after?: number;
  publications: Array<{offset: number; time: number; data: T}>;
}

export interface Memory {
  subscribe<T = unknown>(name: string, options?: SubscribeOptions): Room<T>;
  unsubscribe(name: string): void;
  history<T = unknown>(
    name: string,
    ask?: {last?: number; since?: number; recover?: Position | null; limit?: number},
  ): Promise<History<T>>;
  /** Publishes, and retains: for MQTT subscribers, and for `subscribe` with `last`. */
  retain(name: string, data: unknown): Promise<void>;
  /** Publishes without data, and takes the retained publication away. */
  clearRetained(name: string): Promise<void>;
  presence<I = unknown>(name: string): Presence<I>;
  setInfo(name: string, info: unknown): Promise<unknown>;
  setWill(will: Will): Promise<void>;
  clearWill(): Promise<void>;
}

export interface Caller {
  /** The socket id of its connection. */
  id: string;
  user?: string | number;
  /** The claims of its token; absent without a token. */
  claims?: Record<string, unknown>;
}

export interface Call<D = unknown> {
  /** The whole name that was called. */
  procedure: string;
  data: D;
  caller: Caller;
}

export interface ServeOptions {
  /** Its share of the calls, among all services of the pattern. */
  weight?: number;
  /** How many calls may be open here at a time. */
  window?: number;
}

/** Throw it in a procedure to answer with an error. */
export class CallError extends Error {
  constructor(message: string, members?: {name?: string; [member: string]: unknown});
}

export interface Service {
  /** A pattern is a name, or a beginning of names with `*` at its end. */
  procedure<D = any, R = unknown>(pattern: string, handler: (call: Call<D> & {signal: AbortSignal}) => R | Promise<R>): void;
  procedure<D = any, R = unknown>(pattern: string, options: ServeOptions, handler: (call: Call<D> & {signal: AbortSignal}) => R | Promise<R>): void;
  receiver<D = any>(pattern: string, handler: (call: Call<D>) => void | Promise<void>): void;
  ready(): Promise<void>;
  stop(options?: {timeoutMs?: number}): Promise<void>;
}

/** The module of socketcluster-client 15 to 20. */
export interface SocketClusterClient<S> {
  create(options?: object): S;
}

/** Connects by `socketClusterClient.create(options)`. */
export function connect<S>(socketClusterClient: SocketClusterClient<S>, options?: object): {socket: S; memory: Memory; service: Service};
