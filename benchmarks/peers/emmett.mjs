// Emmett rebuilds the subscriptions.
//
// emmett.mjs fill URL UPTO            puts the first events into Emmett's own event store, one append after the other
// emmett.mjs rebuild URL TABLE BATCH  rebuilds TABLE from them, BATCH events at a time; prints {"seconds": ...}

import { getPostgreSQLEventStore, postgreSQLRawSQLProjection, rebuildPostgreSQLProjections } from '@event-driven-io/emmett-postgresql';
import { sql } from '@event-driven-io/dumbo';
import pg from 'pg';

const TYPES = ['SubscriptionCreated', 'SubscriptionRenewed', 'SubscriptionPriceChanged', 'SubscriptionCancelled'];

async function fill(connectionString, upto) {
  const client = new pg.Client({ connectionString });
  await client.connect();
  const { rows } = await client.query(
    'SELECT aggregate_uuid, event_class, event_properties FROM stored_events WHERE id <= $1 AND event_class = ANY($2) ORDER BY id',
    [upto, TYPES],
  );
  await client.end();
  const store = getPostgreSQLEventStore(connectionString);
  for (const row of rows) {
    await store.appendToStream(row.aggregate_uuid, [{ type: row.event_class, data: row.event_properties }]);
  }
  await store.close();
}

function change(table, { type, data, metadata }) {
  const id = metadata.streamName;
  switch (type) {
    case 'SubscriptionCreated':
      return sql(
        `INSERT INTO ${table} (id, user_id, name, category, price_cents, status, started_on, renews_on, renewals)
         VALUES (%L, %s, %L, %L, %s, 'active', %L, %L, 0)`,
        id, data.user_id, data.name, data.category, data.price_cents, data.started_on, data.renews_on,
      );
    case 'SubscriptionRenewed':
      return sql(`UPDATE ${table} SET renews_on = %L, renewals = renewals + 1 WHERE id = %L`, data.renews_on, id);
    case 'SubscriptionPriceChanged':
      return sql(`UPDATE ${table} SET price_cents = %s WHERE id = %L`, data.price_cents, id);
    default:
      return sql(
        `UPDATE ${table} SET status = 'cancelled', cancelled_on = %L, renews_on = NULL WHERE id = %L`, data.cancelled_on, id,
      );
  }
}

async function rebuild(connectionString, table, batchSize) {
  const projection = postgreSQLRawSQLProjection({
    name: `rebuild_${table}_${Date.now()}`,
    canHandle: TYPES,
    evolve: (event) => change(table, event),
  });
  const consumer = rebuildPostgreSQLProjections({
    connectionString,
    projections: [{ projection, truncateOnStart: false }],
    pulling: { batchSize, pullingFrequencyInMs: 0 },
  });
  const began = process.hrtime.bigint();
  await consumer.start();
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  await consumer.close();
  console.log(JSON.stringify({ seconds }));
}

const [command, ...rest] = process.argv.slice(2);
await (command === 'fill' ? fill(rest[0], Number(rest[1])) : rebuild(rest[0], rest[1], Number(rest[2])));
