// Makes one sharded cluster of the members: replica sets, shards, Baler's user, the sharded collection and its indexes.
// Each step looks first and does only what is missing, so the script may run again at any time.
const members = Number(process.env.MEMBERS);
const file = "/tls/tls-combined.pem";
const options = "tls=true&tlsCAFile=/tls/ca.crt&authMechanism=MONGODB-X509&authSource=%24external" +
  "&tlsCertificateKeyFile=" + encodeURIComponent(file) + "&serverSelectionTimeoutMS=5000";

function patiently(what, attempt) {
  for (let left = 120; ; left--) {
    try { return attempt(); } catch (error) {
      if (left === 0) throw error;
      print(`${what}: ${error.message}; trying again`);
      sleep(5000);
    }
  }
}
const host = (set, number) => `mongodb-${set}-${number}.mongodb-${set}.baler.svc:27017`;
const hosts = (set) => Array.from({ length: members }, (_, number) => host(set, number));

for (const set of ["config", "shard-0", "shard-1", "shard-2"]) {
  patiently(`replica set ${set}`, () => {
    const admin = connect(`mongodb://${host(set, 0)}/admin?directConnection=true&${options}`);
    const status = admin.hello();
    if (status.setName === undefined) {
      const config = { _id: set, members: hosts(set).map((host, _id) => ({ _id, host })) };
      if (set === "config") config.configsvr = true;
      const answer = admin.runCommand({ replSetInitiate: config });
      // 23: another run of this script was faster.
      if (answer.ok !== 1 && answer.code !== 23) throw new Error(answer.errmsg);
      throw new Error("has to choose a primary");
    }
    if (!status.primary) throw new Error("has no primary yet");
  });
}

const admin = patiently("mongos", () => connect(`mongodb://mongodb-mongos.baler.svc:27017/admin?${options}`));
const known = admin.adminCommand({ listShards: 1 }).shards.map((shard) => shard._id);
for (const set of ["shard-0", "shard-1", "shard-2"].filter((set) => !known.includes(set))) {
  patiently(`shard ${set}`, () => {
    const answer = admin.adminCommand({ addShard: `${set}/${hosts(set).join(",")}`, name: set });
    if (answer.ok !== 1) throw new Error(answer.errmsg);
  });
}

const { MONGODB_USERNAME: user, MONGODB_PASSWORD: pwd } = process.env;
const roles = [{ role: "readWrite", db: "compressed_data" }];
if (admin.getUser(user)) admin.updateUser(user, { pwd, roles });
else admin.createUser({ user, pwd, roles });

const namespace = "compressed_data.documents";
const sharded = admin.getSiblingDB("config").collections.findOne({ _id: namespace });
if (!sharded) {
  admin.adminCommand({ enableSharding: "compressed_data" });
  const answer = admin.adminCommand({ shardCollection: namespace, key: { _id: "hashed" } });
  if (answer.ok !== 1) throw new Error(answer.errmsg);
}
const documents = admin.getSiblingDB("compressed_data").documents;
documents.createIndex({ compression_ratio: 1 });
documents.createIndex({ timestamp: 1 });
print(`${namespace} is sharded over ${admin.adminCommand({ listShards: 1 }).shards.length} shards`);
