// A game with Agones' own SDK for Node in it (gRPC): `node agones_sdk.js DIRECTORY_OF_THE_SDK`. Ends by Shutdown.
const assert = require('node:assert');
const AgonesSDK = require(process.argv[2]);

async function fails(call, code) {
  await assert.rejects(call, (error) => error.code === code);
}

async function main() {
  const sdk = new AgonesSDK();
  await sdk.connect();
  const states = [];
  sdk.watchGameServer((shown) => states.push(shown.status.state), () => {});
  await sdk.ready();
  sdk.health(() => {});
  assert.equal((await sdk.getGameServer()).status.state, 'Allocated');
  await sdk.setLabel('mode', 'duel');
  await sdk.setAnnotation('map', 'arena');
  const meta = (await sdk.getGameServer()).objectMeta;
  assert.deepEqual(meta.labelsMap, [['agones.dev/sdk-mode', 'duel']]);
  await sdk.alpha.setPlayerCapacity(1);
  assert.equal(await sdk.alpha.playerConnect('ada'), true);
  assert.equal(await sdk.alpha.playerConnect('ada'), false);
  await fails(sdk.alpha.playerConnect('linus'), 2);
  assert.deepEqual(await sdk.alpha.getConnectedPlayers(), ['ada']);
  await sdk.beta.incrementCounter('rooms', 2);
  assert.equal(await sdk.beta.getCounterCount('rooms'), 3);
  await fails(sdk.beta.incrementCounter('rooms', 100), 11);
  await fails(sdk.beta.getCounterCount('nix'), 5);
  await sdk.beta.setCounterCapacity('rooms', 7);
  assert.equal(await sdk.beta.getCounterCapacity('rooms'), 7);
  await sdk.beta.appendListValue('items', 'x');
  await fails(sdk.beta.appendListValue('items', 'x'), 6);
  assert.deepEqual(await sdk.beta.getListValues('items'), ['x']);
  await sdk.beta.deleteListValue('items', 'x');
  await sdk.reserve(60);
  assert.equal((await sdk.getGameServer()).status.state, 'Reserved');
  await sdk.allocate();
  const until = Date.now() + 10000;
  while (!states.includes('Reserved') && Date.now() < until) await new Promise((then) => setTimeout(then, 20));
  assert.ok(states.includes('Reserved'));
  console.log('all is as it should be');
  await sdk.shutdown();
  await new Promise((then) => setTimeout(then, 10000));
}

main().catch((problem) => {
  console.log('failed', problem);
  process.exit(1);
});
