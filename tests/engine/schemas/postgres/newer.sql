-- What came with PostgreSQL 18.

ALTER TABLE app.orders ADD COLUMN virtual integer GENERATED ALWAYS AS (customer + 1) VIRTUAL;
ALTER TABLE app.orders ADD COLUMN wanted text;
ALTER TABLE app.orders ADD CONSTRAINT nn_wanted NOT NULL wanted NOT VALID;
ALTER TABLE app.orders ALTER COLUMN wanted SET DEFAULT 'yes';
COMMENT ON CONSTRAINT nn_wanted ON app.orders IS 'a constraint against nothing';
ALTER TABLE app.orders ADD CONSTRAINT ck_unenforced CHECK (customer > 5) NOT ENFORCED;
ALTER TABLE app.order_lines ADD CONSTRAINT fk_unenforced FOREIGN KEY (second) REFERENCES other.regions NOT ENFORCED;
