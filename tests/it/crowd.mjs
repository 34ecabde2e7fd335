// Many executors which do nothing: they register at a real scheduler by its gRPC and send heartbeats until this process ends.
// `node crowd.mjs SCHEDULER_PORT COUNT VERSION`. All of them are reached at one port of this process.
import http2 from "node:http2";

const [port, count, version] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4]];
const PROTOCOL = 3;
const BEAT_EVERY = 4000;

function varint(number) {
  const bytes = [];
  let left = BigInt(number);
  do {
    const low = Number(left & 127n);
    left >>= 7n;
    bytes.push(left > 0n ? low | 128 : low);
  } while (left > 0n);
  return Buffer.from(bytes);
}
const number = (tag, value) => Buffer.concat([varint(tag << 3), varint(value)]);
const message = (tag, ...fields) => {
  const body = Buffer.concat(fields);
  return Buffer.concat([varint((tag << 3) | 2), varint(body.length), body]);
};
const text = (tag, value) => message(tag, Buffer.from(value));

// What a scheduler connects to when an executor registers. Nobody asks anything there.
const here = http2.createServer();
here.on("stream", (stream) => { stream.respond({ ":status": 501 }); stream.end(); });
await new Promise((done) => { here.listen(0, "127.0.0.1", done); });
const grpcPort = here.address().port;

const session = http2.connect(`http://127.0.0.1:${port}`);
session.on("error", (error) => { console.error(String(error)); process.exit(1); });

function call(method, id, ...fields) {
  return new Promise((done, failed) => {
    const body = Buffer.concat(fields);
    const head = Buffer.alloc(5);
    head.writeUInt32BE(body.length, 1);
    const stream = session.request({
      ":method": "POST", ":path": `/ballista.protobuf.SchedulerGrpc/${method}`,
      "content-type": "application/grpc", te: "trailers", "user-agent": `baler/${version}+${id}`,
    });
    let status;
    const note = (headers) => { status = headers["grpc-status"] ?? status; };
    stream.on("response", note);
    stream.on("trailers", note);
    stream.on("error", failed);
    stream.on("close", () => (Number(status) === 0 ? done() : failed(new Error(`${method} of ${id}: grpc-status ${status}`))));
    stream.resume();
    stream.end(Buffer.concat([head, body]));
  });
}

const ids = Array.from({ length: count }, (_, at) => `idle-${String(at).padStart(4, "0")}`);
const registration = (tag, id, at) => message(tag, text(1, id), text(2, "127.0.0.1"), number(3, 1024 + at), number(4, grpcPort),
  message(5, message(1, number(1, 4))), message(6), number(7, PROTOCOL));

for (let at = 0; at < count; at += 50) {
  await Promise.all(ids.slice(at, at + 50).map((id, offset) => call("RegisterExecutor", id, registration(1, id, at + offset))));
}
const beat = () => Promise.all(ids.map((id, at) =>
  call("HeartBeatFromExecutor", id, text(1, id), message(2, number(4, (100 + (at % 50)) * 1024 * 1024)), message(3, text(1, "")), registration(4, id, at))));
await beat();
console.log("ready");
setInterval(() => beat().catch((error) => { console.error(String(error)); process.exit(1); }), BEAT_EVERY);
