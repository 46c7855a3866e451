#!/bin/sh
# A projector that is not Python. It projects orders, the number of orders per customer, or the expenses of users by month, by SQL,
# some positions per transaction.
set -eu
[ "$PROGRAM_FAILS" = no ] || { echo "a secret"; exit "$PROGRAM_FAILS"; }
at=$1 to=$2 suffix=$3

execute() {
  case $PROJECTION_REBUILD_READ_MODELS_URL in
    postgresql:*) "$PSQL" -X -q -v ON_ERROR_STOP=1 "$PROJECTION_REBUILD_READ_MODELS_URL" ;;
    *) mariadb --host=127.0.0.1 --port="$PORT" --user=tests "$DATABASE" ;;
  esac
}
case $PROJECTION_REBUILD_READ_MODELS_URL in
  postgresql:*) customer="CAST(event_properties ->> 'customer' AS integer)" day="CAST(event_properties ->> 'on' AS date)"
    user="CAST(event_properties ->> 'user_id' AS integer)" month="left(event_properties ->> 'spent_on', 7)"
    cents="CAST(event_properties ->> 'amount_cents' AS bigint)" table="monthly_summaries$suffix."
    more="ON CONFLICT (user_id, month) DO UPDATE SET expenses = ${table}expenses + excluded.expenses, total_cents = ${table}total_cents + excluded.total_cents"
    keep="ON CONFLICT (id) DO NOTHING" add="ON CONFLICT (customer) DO UPDATE SET orders = customer_totals$suffix.orders + excluded.orders" ;;
  *) customer="JSON_VALUE(event_properties, '\$.customer')" day="JSON_VALUE(event_properties, '\$.on')"
    user="JSON_VALUE(event_properties, '\$.user_id')" month="left(JSON_VALUE(event_properties, '\$.spent_on'), 7)"
    cents="JSON_VALUE(event_properties, '\$.amount_cents')"
    more="ON DUPLICATE KEY UPDATE expenses = expenses + VALUES(expenses), total_cents = total_cents + VALUES(total_cents)"
    keep="ON DUPLICATE KEY UPDATE id = VALUES(id)" add="ON DUPLICATE KEY UPDATE orders = orders + VALUES(orders)" ;;
esac

while [ "$at" -lt "$to" ]; do
  next=$((at + PROGRAM_STEP)); [ "$next" -le "$to" ] || next=$to
  some="FROM stored_events WHERE id > $at AND id <= $next AND event_class"
  if [ "$PROGRAM_KEEPS" = orders ]; then
    execute <<SQL
BEGIN;
INSERT INTO orders$suffix (id, customer, status, placed_on)
  SELECT aggregate_uuid, $customer, 'placed', $day $some = 'OrderPlaced' $keep;
UPDATE orders$suffix SET status = 'shipped' WHERE id IN (SELECT aggregate_uuid $some = 'OrderShipped');
UPDATE orders$suffix SET status = 'cancelled' WHERE id IN (SELECT aggregate_uuid $some = 'OrderCancelled');
COMMIT;
SQL
  elif [ "$PROGRAM_KEEPS" = months ]; then
    execute <<SQL
INSERT INTO monthly_summaries$suffix (user_id, month, expenses, total_cents)
  SELECT $user, $month, count(*), sum($cents) $some = 'ExpenseRecorded' GROUP BY 1, 2 $more;
SQL
  else
    # This statement is not idempotent: an event that is projected twice counts twice.
    execute <<SQL
INSERT INTO customer_totals$suffix (customer, orders, spent)
  SELECT $customer, count(*), 0 $some = 'OrderPlaced' GROUP BY 1 $add;
SQL
  fi
  at=$next
  echo "position $at"
  # Pauses at the position that a test has written into the file.
  while [ -e "$PROGRAM_WAITS" ] && [ "$at" -ge "$(cat "$PROGRAM_WAITS")" ]; do sleep 0.05; done
done
[ -z "$PROGRAM_SAYS" ] || echo "$PROGRAM_SAYS"
