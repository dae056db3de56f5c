-- The renaming waits for the queries that read the table, and every later query waits behind it.
SET LOCAL lock_timeout = '3s';

-- Each generation of the read model has a table; vendor_billing is a view of the active one. While generation 1 is active it is a
-- plain view, through which a projector of an earlier version can write.
ALTER TABLE vendor_billing RENAME TO vendor_billing_g1;
CREATE VIEW vendor_billing AS SELECT vendor_id, year, month, balance FROM vendor_billing_g1;

-- Which generation readers see, and who has decided that.
CREATE TABLE read_model (
    name text PRIMARY KEY,
    active int NOT NULL,
    previous int,
    newest int NOT NULL,
    since timestamptz,
    changed_by text,
    reason text,
    accepted_diff text,
    -- The run of `cartctl switch` or `drop` that may change the row now, who has started it, and how often it has said that it is at work.
    claim uuid,
    claim_by text,
    claim_renewals int
);
INSERT INTO read_model (name, active, newest) VALUES ('vendor-billing-jdbc', 1, 1);

-- What was granted on the table has moved with it. Who could use it by the name vendor_billing still can.
DO $$
DECLARE
    granted record;
    grantee text;
BEGIN
    FOR granted IN
        SELECT acl.privilege_type, acl.grantee FROM pg_class, aclexplode(relacl) AS acl
        WHERE oid = 'vendor_billing_g1'::regclass AND acl.grantee <> relowner
            AND acl.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        grantee := CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(granted.grantee)) END;
        EXECUTE format('GRANT %s ON vendor_billing TO %s', granted.privilege_type, grantee);
        IF granted.privilege_type = 'SELECT' THEN
            EXECUTE format('GRANT SELECT ON read_model TO %s', grantee);
        END IF;
    END LOOP;
END
$$;
