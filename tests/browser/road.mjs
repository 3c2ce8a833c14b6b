// A road between a device and a relay that can be made narrow: a download takes as long as somebody
// wants to look at it, however fast the machine is.

import { createSocket } from "node:dgram";
import { once } from "node:events";

/** How often a narrow road lets something pass, in milliseconds. */
const TICK = 20;

export class Road {
  #front = createSocket("udp4");
  #backs = new Map();
  #waiting = [];
  #rate = Infinity;

  /** Passes what comes to its address on to a relay on this machine, and the answers back. */
  static async to(relay) {
    const road = new Road();
    road.#front.bind(0, "127.0.0.1");
    await once(road.#front, "listening");
    const port = Number(relay.split(":")[1]);
    road.#front.on("message", (datagram, { port: device }) => road.#back(device).send(datagram, port, "127.0.0.1"));
    road.address = `127.0.0.1:${road.#front.address().port}`;
    road.ticking = setInterval(() => road.#pass(), TICK);
    return road;
  }

  /** From now on the answers pass at so many bytes a second, and none is lost. */
  narrow(rate) {
    this.#rate = rate;
  }

  widen() {
    this.#rate = Infinity;
    this.#pass();
  }

  close() {
    clearInterval(this.ticking);
    for (const socket of [this.#front, ...this.#backs.values()]) socket.close();
  }

  #back(device) {
    if (!this.#backs.has(device)) {
      const back = createSocket("udp4");
      back.on("message", (datagram) => {
        this.#waiting.push([datagram, device]);
        if (this.#rate === Infinity) this.#pass();
      });
      this.#backs.set(device, back);
    }
    return this.#backs.get(device);
  }

  #pass() {
    for (let left = (this.#rate * TICK) / 1000; left > 0 && this.#waiting.length > 0; ) {
      const [datagram, device] = this.#waiting.shift();
      this.#front.send(datagram, device, "127.0.0.1");
      left -= datagram.length;
    }
  }
}
