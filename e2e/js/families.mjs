// What operators' programs do with the management libraries for JavaScript:
// machines, scale sets, identities and roles are made, read, listed, changed and
// deleted, and what is read is checked. Run it as a workload that may.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { DefaultAzureCredential } from "@azure/identity";
import { ManagedServiceIdentityClient } from "@azure/arm-msi";
import { AuthorizationManagementClient } from "@azure/arm-authorization";
import { ComputeManagementClient } from "@azure/arm-compute";

const group = process.argv[2];
const subscription = process.env.AZURE_SUBSCRIPTION_ID;
const options = { endpoint: `https://${process.env.ARM_METADATA_HOSTNAME}` };
const credential = new DefaultAzureCredential();
const compute = new ComputeManagementClient(credential, subscription, options);
const msi = new ManagedServiceIdentityClient(credential, subscription, options);
const authorization = new AuthorizationManagementClient(credential, subscription, options);

async function all(pages) {
  const out = [];
  for await (const item of pages) out.push(item);
  return out;
}

const isAbsent = (err) => err.statusCode === 404 && err.code === "ResourceNotFound";

async function machine(id) {
  const vms = compute.virtualMachines;
  const made = await vms.createOrUpdate(group, "js-vm", {
    location: "local", zones: ["1"], tags: { made: "here" }, hardwareProfile: { vmSize: "Standard_D2s_v5" },
    identity: { type: "SystemAssigned, UserAssigned", userAssignedIdentities: { [id]: {} } },
  });
  const got = await vms.get(group, "js-vm", { expand: "instanceView" });
  assert.equal(got.identity.type, "SystemAssigned, UserAssigned");
  assert.equal(got.identity.principalId, made.identity.principalId);
  assert.ok(got.identity.userAssignedIdentities[id].clientId);
  assert.ok(got.vmId);
  assert.deepEqual([got.zones, got.hardwareProfile.vmSize, got.provisioningState], [["1"], "Standard_D2s_v5", "Succeeded"]);
  assert.equal(got.instanceView.statuses[0].code, "ProvisioningState/succeeded");
  assert.ok((await all(vms.list(group))).some((vm) => vm.name === "js-vm"));
  const patched = await vms.update(group, "js-vm", { identity: { type: "SystemAssigned" } });
  assert.equal(patched.identity.type, "SystemAssigned");
  assert.equal(patched.identity.principalId, made.identity.principalId);
  const none = await vms.update(group, "js-vm", { identity: { type: "None" } });
  assert.equal(none.identity?.principalId, undefined);
  await assert.rejects(vms.start(group, "js-vm"), (err) => err.code === "NotSupported");
  await vms.delete(group, "js-vm");
  await assert.rejects(vms.get(group, "js-vm"), isAbsent);
}

async function scaleSet() {
  const set = await compute.virtualMachineScaleSets.createOrUpdate(group, "js-set", {
    location: "local", sku: { name: "Standard_D2s_v5", capacity: 1 }, identity: { type: "SystemAssigned" },
  });
  const vms = compute.virtualMachineScaleSetVMs;
  const instance = await vms.update(group, "js-set", "0", { location: "local" });
  assert.equal(instance.instanceId, "0");
  assert.equal(instance.identity.principalId, set.identity.principalId);
  assert.deepEqual((await all(vms.list(group, "js-set"))).map((vm) => vm.instanceId), ["0"]);
  await vms.delete(group, "js-set", "0");
  await compute.virtualMachineScaleSets.delete(group, "js-set");
}

async function role(identity) {
  const scope = `/subscriptions/${subscription}/resourceGroups/${group}`;
  const [reader] = await all(authorization.roleDefinitions.list(scope, { filter: "roleName eq 'Reader'" }));
  const name = randomUUID();
  const made = await authorization.roleAssignments.create(scope, name, {
    roleDefinitionId: reader.id, principalId: identity.principalId, principalType: "ServicePrincipal",
  });
  const got = await authorization.roleAssignments.get(scope, name);
  assert.deepEqual([got.id, got.principalId, got.roleDefinitionId], [made.id, identity.principalId, made.roleDefinitionId]);
  const listed = await all(authorization.roleAssignments.listForScope(scope, { filter: `principalId eq '${identity.principalId}'` }));
  assert.deepEqual(listed.map((a) => a.id), [made.id]);
  await authorization.roleAssignments.delete(scope, name);
  assert.deepEqual(await all(authorization.roleAssignments.listForScope(scope, { filter: `principalId eq '${identity.principalId}'` })), []);
}

try {
  const identity = await msi.userAssignedIdentities.createOrUpdate(group, "js-identity", { location: "local" });
  const own = await msi.systemAssignedIdentities.getByScope(`subscriptions/${subscription}/resourceGroups/${group}/providers/Microsoft.Compute/virtualMachines/vm1`);
  assert.ok(own.principalId && own.clientId && own.clientSecretUrl && own.location === "local");
  const patched = await msi.userAssignedIdentities.update(group, "js-identity", { tags: { a: "b" } });
  assert.deepEqual([patched.tags, patched.principalId], [{ a: "b" }, identity.principalId]);
  assert.ok((await all(msi.operations.list())).length > 3);
  await machine(identity.id);
  await scaleSet();
  await role(identity);
  await msi.userAssignedIdentities.delete(group, "js-identity");
  await assert.rejects(msi.userAssignedIdentities.get(group, "js-identity"), isAbsent);
  console.log("all as it was to be");
} catch (err) {
  console.error(err.stack ?? String(err));
  process.exit(1);
}
