-- The trigger waits for the transactions that change offsets, and every later one waits behind it.
SET LOCAL lock_timeout = '3s';

-- The rows that their projector could not keep: the records from next_position on are not in them, and wait in the topic. Changed in the
-- transaction that changes the offsets.
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

-- A projector of an earlier version does not know of parked rows: it would add newer records to them, and the next try would add these
-- again. Those that know of them say so, and are not asked for more. The function runs with the rights of who changes the offset.
CREATE FUNCTION refuse_older_projector() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM parked_row
        WHERE projection = NEW.projection AND topic = NEW.topic AND log_partition = NEW.partition
    ) THEN
        RAISE EXCEPTION 'rows of % are parked in partition % of %, and this projector is too old for them: replace it with a newer one',
            NEW.projection, NEW.partition, NEW.topic
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER refuse_older_projector AFTER UPDATE ON projection_offset FOR EACH ROW
    WHEN (current_setting('cart.knows_parked_rows', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION refuse_older_projector();
