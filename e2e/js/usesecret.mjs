// A program that knows nothing of Innate: it takes a password from PASSWORD
// and a key from the file at KEY_FILE, prints the SHA-256 of both, and then,
// carelessly, the password.
import { createHash } from "node:crypto";
import { readFileSync, realpathSync } from "node:fs";

const key = readFileSync(realpathSync(process.env.KEY_FILE));
console.log(createHash("sha256").update(process.env.PASSWORD).update(key).digest("hex"));
console.log("debug: {password:%s}", process.env.PASSWORD);
