// What the application knows: the same file before and after. A real one has a database here.
export class Shop {
  #users = new Map([['ann', {password: 'lamp', role: 'staff'}], ['bob', {password: 'chair', role: 'customer'}]]);
  #orders = [];

  /** The claims of a user, or `null`. */
  claimsOf(user, password) {
    const known = this.#users.get(user);
    return known?.password === password ? {user, role: known.role} : null;
  }

  order(user, item) {
    const order = {id: this.#orders.length + 1, user, item};
    this.#orders.push(order);
    return order;
  }

  ordersOf(user) {
    return this.#orders.filter((order) => order.user === user);
  }
}

export function failure(name, message) {
  return Object.assign(new Error(message), {name});
}
