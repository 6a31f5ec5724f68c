// What operators' programs do with more management libraries for JavaScript:
// container groups, container apps and their jobs, machines elsewhere, locks and
// management groups. Run it as a workload that may.
import assert from "node:assert/strict";
import { createHttpHeaders, createPipelineRequest } from "@azure/core-rest-pipeline";
import { DefaultAzureCredential } from "@azure/identity";
import { ContainerAppsAPIClient } from "@azure/arm-appcontainers";
import { ContainerInstanceManagementClient } from "@azure/arm-containerinstance";
import { HybridComputeManagementClient } from "@azure/arm-hybridcompute";
import { ManagementGroupsAPI } from "@azure/arm-managementgroups";
import { ManagementLockClient } from "@azure/arm-locks";
import { ManagedServiceIdentityClient } from "@azure/arm-msi";

const group = process.argv[2];
const subscription = process.env.AZURE_SUBSCRIPTION_ID;
const endpoint = `https://${process.env.ARM_METADATA_HOSTNAME}`;
const options = { endpoint };
const credential = new DefaultAzureCredential();
const msi = new ManagedServiceIdentityClient(credential, subscription, options);

async function all(pages) {
  const out = [];
  for await (const item of pages) out.push(item);
  return out;
}

const named = (name) => (item) => item.name === name;
const isAbsent = (err) => err.statusCode === 404 && err.code === "ResourceNotFound";

async function containerGroups(id) {
  const { containerGroups } = new ContainerInstanceManagementClient(credential, subscription, { ...options, $host: endpoint });
  const containers = [{ name: "web", image: "web:1", resources: { requests: { cpu: 1, memoryInGB: 1.5 } } }];
  const made = await containerGroups.beginCreateOrUpdateAndWait(group, "js-containers", {
    location: "local", osType: "Linux", restartPolicy: "Never", containers,
    identity: { type: "SystemAssigned, UserAssigned", userAssignedIdentities: { [id]: {} } },
  });
  const got = await containerGroups.get(group, "js-containers");
  assert.equal(got.identity.principalId, made.identity.principalId);
  assert.ok(got.identity.userAssignedIdentities[id].principalId);
  assert.equal(got.containers[0].resources.requests.memoryInGB, 1.5);
  assert.ok((await all(containerGroups.list())).some(named("js-containers")));
  assert.ok((await all(containerGroups.listByResourceGroup(group))).some(named("js-containers")));
  const tagged = await containerGroups.update(group, "js-containers", { tags: { a: "b" } });
  assert.deepEqual([tagged.tags, tagged.identity.principalId], [{ a: "b" }, made.identity.principalId]);
  await containerGroups.beginDeleteAndWait(group, "js-containers");
  await assert.rejects(containerGroups.get(group, "js-containers"), isAbsent);
}

async function containerApps(id) {
  const { containerApps, jobs } = new ContainerAppsAPIClient(credential, subscription, options);
  const template = { containers: [{ name: "web", image: "web:1" }] };
  const app = await containerApps.createOrUpdate(group, "js-app", {
    location: "local", template, configuration: { ingress: { external: true, targetPort: 80 } }, identity: { type: "SystemAssigned" },
  });
  assert.ok(app.identity.principalId);
  assert.equal(app.configuration.ingress.targetPort, 80);
  const both = await containerApps.update(group, "js-app", {
    location: "local", identity: { type: "SystemAssigned,UserAssigned", userAssignedIdentities: { [id]: {} } },
  });
  assert.equal(both.identity.principalId, app.identity.principalId);
  assert.ok(both.identity.userAssignedIdentities[id].clientId);
  // An app's document is all that there is of it: without identities it has none.
  const none = await containerApps.createOrUpdate(group, "js-app", { location: "local", template });
  assert.equal(none.identity.type, "None");
  assert.ok((await all(containerApps.listBySubscription())).some(named("js-app")));
  const job = await jobs.createOrUpdate(group, "js-job", {
    location: "local", template, configuration: { triggerType: "Manual", replicaTimeout: 60 }, identity: { type: "UserAssigned", userAssignedIdentities: { [id]: {} } },
  });
  assert.deepEqual([job.identity.type, job.configuration.triggerType], ["UserAssigned", "Manual"]);
  await jobs.delete(group, "js-job");
  await containerApps.delete(group, "js-app");
  await assert.rejects(containerApps.get(group, "js-app"), isAbsent);
}

// The library reads machines that their own agent has made: this is its PUT.
async function hybridMachine() {
  const client = new HybridComputeManagementClient(credential, subscription, { ...options, $host: endpoint });
  const made = await client.sendRequest(createPipelineRequest({
    url: `${endpoint}/subscriptions/${subscription}/resourceGroups/${group}/providers/Microsoft.HybridCompute/machines/js-machine?api-version=2022-12-27`,
    method: "PUT", headers: createHttpHeaders({ "Content-Type": "application/json" }),
    body: JSON.stringify({ location: "local", identity: { type: "SystemAssigned" }, properties: { locationData: { name: "rack 3" } } }),
  }));
  assert.ok(made.status === 200 || made.status === 201, `${made.status} ${made.bodyAsText}`);
  const got = await client.machines.get(group, "js-machine");
  assert.equal(got.identity.principalId, JSON.parse(made.bodyAsText).identity.principalId);
  assert.equal(got.properties.locationData.name, "rack 3");
  assert.ok((await all(client.machines.listByResourceGroup(group))).some(named("js-machine")));
  await client.machines.delete(group, "js-machine");
  await assert.rejects(client.machines.get(group, "js-machine"), isAbsent);
}

async function locks() {
  const { managementLocks } = new ManagementLockClient(credential, subscription, { ...options, $host: endpoint });
  await managementLocks.createOrUpdateAtResourceGroupLevel(group, "js-lock", { level: "CanNotDelete", notes: "until done" });
  await assert.rejects(msi.userAssignedIdentities.delete(group, "js-owner"), (err) => err.statusCode === 409 && err.code === "ScopeLocked");
  const got = await managementLocks.getAtResourceGroupLevel(group, "js-lock");
  assert.deepEqual([got.level, got.notes], ["CanNotDelete", "until done"]);
  assert.ok((await all(managementLocks.listAtSubscriptionLevel())).some(named("js-lock")));
  await managementLocks.deleteAtResourceGroupLevel(group, "js-lock");
}

async function managementGroups() {
  const client = new ManagementGroupsAPI(credential, { ...options, $host: endpoint });
  const made = await client.managementGroups.beginCreateOrUpdateAndWait("js-groups", { name: "js-groups", displayName: "From JavaScript" });
  assert.equal((await client.managementGroups.get("js-groups")).displayName, "From JavaScript");
  assert.ok((await all(client.managementGroups.list())).some(named("js-groups")));
  await client.managementGroupSubscriptions.create("js-groups", subscription);
  assert.deepEqual((await all(client.managementGroups.listDescendants("js-groups"))).map((d) => d.name), [subscription]);
  const tree = await client.managementGroups.get("js-groups", { expand: "children", recurse: true });
  assert.deepEqual(tree.children.map((c) => [c.name, c.type]), [[subscription, "/subscriptions"]]);
  const under = await all(client.managementGroupSubscriptions.listSubscriptionsUnderManagementGroup("js-groups"));
  assert.deepEqual(under.map((s) => [s.name, s.parent.id]), [[subscription, made.id]]);
  const [entity] = (await all(client.entities.list())).filter(named("js-groups"));
  assert.deepEqual([entity.displayName, entity.permissions, entity.numberOfChildren], ["From JavaScript", "delete", 1]);
  await client.managementGroupSubscriptions.delete("js-groups", subscription);
  await client.managementGroups.beginDeleteAndWait("js-groups");
}

try {
  const identity = await msi.userAssignedIdentities.createOrUpdate(group, "js-owner", { location: "local" });
  await containerGroups(identity.id);
  await containerApps(identity.id);
  await hybridMachine();
  await locks();
  await managementGroups();
  await msi.userAssignedIdentities.delete(group, "js-owner");
  console.log("all as it was to be");
} catch (err) {
  console.error(err.stack ?? String(err));
  process.exit(1);
}
