import {Stream} from './stream.js';

/**
 * A subscription that recovers. After a reconnect it asks for what was published since the last publication that it has handed out.
 * Iterating it gives publications: `{data, position, replayed}`.
 */
export class Room {
  #publications = new Stream();
  #recoveries = new Stream();
  #first;
  #data;
  #onGap;
  #hasBegun = false;
  /** Whether the server has answered with a position, so that the channel has a history. */
  #hasHistory = false;
  /** Whether a subscribe after the first has no position to recover from: what was published meanwhile is missed. */
  #hasLostPlace = false;

  constructor(name, {last, since, position, data, onGap}) {
    this.name = name;
    /** Up to there this client has all that it is to have; `null` if that is not known. */
    this.position = position ?? null;
    this.#first = last !== undefined ? {last} : since !== undefined ? {since} : {recover: this.position};
    this.#data = data;
    this.#onGap = onGap;
  }

  /** The data of the next subscribe. */
  subscribeData() {
    // Without a history there is nothing to recover; what is retained may have changed meanwhile.
    const isFirst = !this.#hasBegun || (this.#first.last !== undefined && !this.#hasHistory);
    this.#hasLostPlace = !isFirst && this.position === null;
    return {...this.#data, ...(isFirst ? this.#first : {recover: this.position})};
  }

  /** The server has answered the subscribe. */
  subscribed(answer) {
    const hadBegun = this.#hasBegun;
    this.#hasBegun = true;
    this.#hasHistory = Boolean(answer?.position);
    if (!answer?.position) return; // the channel has no history
    const {publications = 0} = answer;
    const {recovered = null, reason = null} = this.#hasLostPlace ? {recovered: false, reason: 'no position'} : answer;
    // If publications follow, each tells its own position.
    if (publications === 0) this.position = answer.position;
    const recovery = {recovered, reason, position: answer.position, publications};
    this.#recoveries.push(recovery);
    if (recovered === false && (hadBegun || this.#first.recover)) this.#onGap?.(recovery);
  }

  /** A publication of the channel has come. */
  published({data, position = null, replayed = false}) {
    // Without positions nothing can be recovered without repetitions.
    this.position = position;
    this.#publications.push({data, position, replayed});
  }

  /** The client has all of the channel up to there that it is to have: the server has withheld the last publications. */
  positioned(position) {
    this.position = position;
  }

  /** Each answer to a subscribe: `{recovered, reason, position, publications}`. */
  recoveries() {
    return this.#recoveries;
  }

  /** Ends all iterations. */
  end() {
    this.#publications.end();
    this.#recoveries.end();
  }

  [Symbol.asyncIterator]() {
    return this.#publications[Symbol.asyncIterator]();
  }
}
