// A queue with one or several readers, each of which is an async iterator.

/** Values that are pushed now and read later. Each iterator gets all values that are pushed after it began. */
export class Stream {
  #readers = new Set();
  #ended = false;

  /** Gives a value to all readers. */
  push(value) {
    for (const reader of this.#readers) reader.push(value);
  }

  /** Ends all readers once they have read what was pushed. */
  end() {
    this.#ended = true;
    for (const reader of this.#readers) reader.end();
  }

  [Symbol.asyncIterator]() {
    const values = [];
    let wake, ended = this.#ended;
    const reader = {
      push(value) { values.push(value); wake?.(); },
      end() { ended = true; wake?.(); },
    };
    this.#readers.add(reader);
    return {
      next: async () => {
        while (values.length === 0 && !ended) await new Promise((resolve) => { wake = resolve; });
        return values.length > 0 ? {done: false, value: values.shift()} : {done: true, value: undefined};
      },
      return: async () => {
        this.#readers.delete(reader);
        reader.end();
        values.length = 0;
        return {done: true, value: undefined};
      },
      [Symbol.asyncIterator]() { return this; },
    };
  }
}
