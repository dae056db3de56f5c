-- The rows that their projector could not keep: the records from next_position on are not in them, and wait in the topic. Changed in the
-- transaction that changes the offsets. A projector of an earlier version does not know of them, and has none.
CREATE TABLE parked_row (
    projection text NOT NULL,
    topic text NOT NULL,
    log_partition int NOT NULL,
    vendor_id uuid NOT NULL,
    row_key text NOT NULL,
    first_position bigint NOT NULL,
    next_position bigint NOT NULL,
    reason text NOT NULL,
    since timestamptz NOT NULL,
    -- Who wants the row to be tried again, and since when.
    retry_by text,
    retry_at timestamptz,
    PRIMARY KEY (projection, topic, vendor_id, row_key)
);

-- Who may change the offsets also parks rows; who reads the offsets reads the parked rows.
DO $$
DECLARE
    granted record;
    grantee text;
BEGIN
    FOR granted IN
        SELECT acl.privilege_type, acl.grantee FROM pg_class, aclexplode(relacl) AS acl
        WHERE oid = 'projection_offset'::regclass AND acl.grantee <> relowner
            AND acl.privilege_type IN ('SELECT', 'INSERT', 'UPDATE')
    LOOP
        grantee := CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(granted.grantee)) END;
        EXECUTE format('GRANT %s ON parked_row TO %s', granted.privilege_type, grantee);
        IF granted.privilege_type = 'UPDATE' THEN
            EXECUTE format('GRANT DELETE ON parked_row TO %s', grantee);
        END IF;
    END LOOP;
END
$$;
