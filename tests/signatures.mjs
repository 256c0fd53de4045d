// A receiver that accepts what the key verifies: signatures.mjs KEY PORT-FILE
import { createPublicKey, verify as verifyWith } from "node:crypto";
import { renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const [key, portFile] = process.argv.slice(2);

function verify(headers, body) {
  if (!key.startsWith("whpk_")) return new Webhook(key).verify(body, headers);
  const raw = Buffer.from(key.slice("whpk_".length), "base64");
  const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), raw]);
  const publicKey = createPublicKey({ key: spki, format: "der", type: "spki" });
  const signed = Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`);
  const good = headers["webhook-signature"].split(" ").some((signature) => {
    const [version, value] = signature.split(",");
    return version === "v1a" && verifyWith(null, signed, publicKey, Buffer.from(value, "base64"));
  });
  if (!good) throw new Error("no v1a signature of this key");
}

const server = createServer(async (request, response) => {
  let body = "";
  request.setEncoding("utf8");
  for await (const chunk of request) body += chunk;
  try {
    if (request.method === "POST") verify(request.headers, body);
    response.writeHead(204).end();
  } catch {
    response.writeHead(400).end();
  }
});
server.listen(0, "127.0.0.1", () => {
  writeFileSync(`${portFile}.new`, String(server.address().port));
  renameSync(`${portFile}.new`, portFile);
});
