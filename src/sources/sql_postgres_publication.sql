-- Row changes: SELECT fanwire_watch('todos', 'todos:{list_id}');
--
-- From then on each INSERT, UPDATE and DELETE of the table is an event when its transaction commits,
--   {"op":"update","table":"public.todos","key":{"id":7},"row":{…},"old":{…},"tx":"7413"}
-- in the channel that the template makes of the row: {column} stands for the column's value. An
-- update that moves a row to another channel is told to both. Nothing runs at the writer: fanwire
-- takes the changes out of the write-ahead log, by the publication "fanwire".
--
-- A table may have any number of templates; each is told. The same template again replaces its own
-- columns only. SELECT * FROM fanwire.watched lists them, fanwire_unwatch('todos', 'todos:{list_id}')
-- ends one, fanwire_unwatch('todos') all.

-- What is watched. The table is in the publication itself, so that the reader learns of a change
-- where it stands among the changes of rows. What has ended stays for a while: a reader that begins
-- further back in the log needs it. `id` is part of events' positions. `relation` is `tbl` as a number,
-- which is what the log tells; a dump carries the table's name instead, so that after a restore `tbl`
-- is right and `relation` is that of the former database until fanwire_watch() or this SQL mends it.
-- What is not in the publication is not watched: a row of a table that was gone when it was dumped may
-- have the number of another one now.
CREATE TABLE IF NOT EXISTS fanwire.watching (
    id       integer GENERATED ALWAYS AS IDENTITY,
    relation oid NOT NULL,
    tbl      regclass NOT NULL,
    channel  text NOT NULL,
    columns  text[],
    keys     text[],
    ended    timestamptz,
    PRIMARY KEY (relation, channel)
);
DO $fanwire$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = to_regclass('fanwire.watching') AND attname = 'tbl') THEN
        ALTER TABLE fanwire.watching ADD COLUMN tbl regclass; -- an earlier form
        UPDATE fanwire.watching SET tbl = relation;
        ALTER TABLE fanwire.watching ALTER COLUMN tbl SET NOT NULL;
    END IF;
END
$fanwire$;
COMMENT ON TABLE fanwire.watching IS 'What fanwire_watch() has set up; see the view fanwire.watched';

-- Tables, and partitions of tables, whose replica identity was changed for their events, and what it was.
CREATE TABLE IF NOT EXISTS fanwire.identities (
    tbl      regclass PRIMARY KEY,
    identity "char" NOT NULL,
    index    name -- of USING INDEX
);
COMMENT ON TABLE fanwire.identities IS 'Replica identities before fanwire_watch() has changed them';
DO $fanwire$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass('fanwire.watching')
               AND attname = 'identity' AND NOT attisdropped) THEN
        INSERT INTO fanwire.identities (tbl, identity) -- an earlier form
        SELECT DISTINCT ON (w.tbl) w.tbl, w.identity FROM fanwire.watching w
        WHERE w.identity IS NOT NULL ON CONFLICT (tbl) DO NOTHING;
        ALTER TABLE fanwire.watching DROP COLUMN identity;
    END IF;
END
$fanwire$;

CREATE OR REPLACE VIEW fanwire.watched AS
    SELECT w.tbl, w.channel, w.columns
    FROM fanwire.watching w JOIN pg_catalog.pg_publication_rel r ON r.prrelid = w.tbl
    JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid AND p.pubname = 'fanwire'
    WHERE w.ended IS NULL;
COMMENT ON VIEW fanwire.watched IS
    'What fanwire_watch() has set up: a row for each table and template';

DO $fanwire$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'fanwire') THEN
        CREATE PUBLICATION fanwire FOR TABLE fanwire.watching
            WITH (publish_via_partition_root = true);
    END IF;
END
$fanwire$;

-- After a restored dump: the numbers of the tables that are here now. What is in the way of them ended
-- in the former database, or was a table that is gone.
CREATE OR REPLACE FUNCTION fanwire.renumber()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
BEGIN
    IF EXISTS (SELECT FROM fanwire.watching w WHERE w.relation <> w.tbl) THEN
        UPDATE fanwire.watching w SET relation = 0, channel = w.id || ' ' || w.channel
        WHERE w.relation <> w.tbl;
        UPDATE fanwire.watching w SET relation = w.tbl, channel = substr(w.channel, strpos(w.channel, ' ') + 1)
        WHERE w.relation = 0;
    END IF;
END
$fanwire$;
SELECT fanwire.renumber();

-- Replica identities. The log has of an old row what the identity of its table says, of a partition's row
-- what that of the partition says: each has its own, and a new one that of no other.

CREATE OR REPLACE VIEW fanwire.published AS
    SELECT r.prrelid AS relation FROM pg_catalog.pg_publication_rel r
    JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid AND p.pubname = 'fanwire';
COMMENT ON VIEW fanwire.published IS 'The tables of the publication, by their numbers';

-- Partitions that have another identity than their table, and not all of the row either; and how an
-- ALTER TABLE writes what they are to have.
CREATE OR REPLACE FUNCTION fanwire.unfit_partitions(tbl regclass, OUT part regclass, OUT identity text)
RETURNS SETOF record
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
    SELECT c.oid::regclass, CASE WHEN top.relreplident = 'd' THEN 'DEFAULT'
                                 WHEN own.name IS NOT NULL THEN format('USING INDEX %I', own.name)
                                 ELSE 'FULL' END
    FROM pg_class top JOIN pg_partition_tree(top.oid) t ON t.isleaf
    JOIN pg_class c ON c.oid = t.relid AND c.relkind = 'r' AND c.relpersistence = 'p'
    LEFT JOIN LATERAL (
        SELECT x.relname AS name, i.indisreplident AS used
        FROM pg_index whole, pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        WHERE top.relreplident = 'i' AND whole.indrelid = top.oid AND whole.indisreplident
          AND i.indrelid = c.oid AND i.indisvalid
          AND whole.indexrelid IN (SELECT relid FROM pg_partition_ancestors(i.indexrelid))
    ) own ON true
    WHERE top.oid = tbl AND c.oid <> top.oid AND c.relreplident <> 'f'
      AND CASE top.relreplident WHEN 'i' THEN own.used IS NOT TRUE
                                ELSE c.relreplident <> top.relreplident END
$fanwire$;

CREATE OR REPLACE FUNCTION fanwire.change_identity(tbl regclass, identity text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
BEGIN
    INSERT INTO fanwire.identities (tbl, identity, index)
    SELECT c.oid, c.relreplident, x.relname
    FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisreplident
    LEFT JOIN pg_class x ON x.oid = i.indexrelid
    WHERE c.oid = change_identity.tbl ON CONFLICT DO NOTHING;
    EXECUTE format('ALTER TABLE %s REPLICA IDENTITY %s', tbl, identity);
END
$fanwire$;

CREATE OR REPLACE FUNCTION fanwire.fit_partitions(tbl regclass)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
    SELECT fanwire.change_identity(u.part, u.identity) FROM fanwire.unfit_partitions(tbl) u
$fanwire$;

-- Sets back what was changed of tables that are watched no more.
CREATE OR REPLACE FUNCTION fanwire.restore_identities()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    old record;
BEGIN
    DELETE FROM fanwire.identities i WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = i.tbl);
    FOR old IN
        SELECT i.* FROM fanwire.identities i WHERE NOT EXISTS (
            SELECT FROM fanwire.published p
            WHERE p.relation = i.tbl OR p.relation IN (SELECT relid FROM pg_partition_ancestors(i.tbl)))
    LOOP
        BEGIN
            EXECUTE format('ALTER TABLE %s REPLICA IDENTITY %s', old.tbl,
                           CASE old.identity WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING'
                               WHEN 'i' THEN format('USING INDEX %I', old.index) ELSE 'DEFAULT' END);
            DELETE FROM fanwire.identities i WHERE i.tbl = old.tbl;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'fanwire_unwatch: the replica identity of % is not set back: %', old.tbl, SQLERRM;
        END;
    END LOOP;
END
$fanwire$;

-- Where who installs this may do it, new partitions get what their table has by an event trigger: else
-- writing to them fails (no key), or their old rows are not known. It fails nobody's statement, and waits
-- for nobody: what was made or attached is the transaction's own already.
CREATE OR REPLACE FUNCTION fanwire.on_partition()
RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '10ms'
AS $fanwire$
DECLARE
    unfit record;
BEGIN
    FOR unfit IN
        SELECT DISTINCT u.part, u.identity, a.relid AS whole FROM pg_event_trigger_ddl_commands() d
        JOIN pg_class c ON c.oid = d.objid, pg_partition_ancestors(d.objid) a
        JOIN fanwire.published p ON p.relation = a.relid, fanwire.unfit_partitions(a.relid) u
        WHERE d.classid = 'pg_class'::regclass AND (d.command_tag = 'CREATE TABLE' OR c.relkind = 'p')
          AND u.part IN (SELECT relid FROM pg_partition_tree(d.objid))
    LOOP
        BEGIN
            PERFORM fanwire.change_identity(unfit.part, unfit.identity);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'fanwire: the partition % has not got the replica identity of %: %',
                unfit.part, unfit.whole, SQLERRM
                USING HINT = format('Call fanwire_watch() for %s again.', unfit.whole);
        END;
    END LOOP;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'fanwire: partitions of watched tables are not looked after: %', SQLERRM
        USING HINT = 'Install fanwire''s SQL again.';
END
$fanwire$;

-- It runs in everybody's transactions, a superuser's too. So all that it consists of belongs to whoever
-- makes it.
DO $fanwire$
DECLARE
    me oid := current_user::regrole;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtname = 'fanwire_partitions')
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'fanwire' AND nspowner <> me)
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_class
                       WHERE relnamespace = 'fanwire'::regnamespace AND relowner <> me)
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc
                       WHERE pronamespace = 'fanwire'::regnamespace AND proowner <> me) THEN
        CREATE EVENT TRIGGER fanwire_partitions ON ddl_command_end
            WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE SCHEMA')
            EXECUTE FUNCTION fanwire.on_partition();
    END IF;
EXCEPTION WHEN OTHERS THEN
    NULL; -- fanwire_watch() says what to do without it
END
$fanwire$;

-- Sees to it that the log has of an old row what its channel is made of: else changes of a table
-- without a key would even fail.
DROP FUNCTION IF EXISTS fanwire.make_identity(regclass, text), -- an earlier form
    fanwire.set_identity(regclass, "char");
CREATE OR REPLACE FUNCTION fanwire.make_identity(tbl regclass, channel text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    before "char" := (SELECT relreplident FROM pg_class WHERE oid = tbl);
    held text[];
    unlogged text;
BEGIN
    SELECT array_agg(a.attname::text) INTO held
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = tbl AND CASE before WHEN 'd' THEN i.indisprimary
                                           WHEN 'i' THEN i.indisreplident ELSE false END;
    IF before <> 'f' AND (held @> fanwire.template_columns(channel)) IS NOT TRUE THEN
        RAISE NOTICE 'fanwire_watch: % gets REPLICA IDENTITY FULL: its events need columns outside its key',
            tbl;
        PERFORM fanwire.change_identity(tbl, 'FULL');
        before := 'f';
    END IF;
    PERFORM fanwire.fit_partitions(tbl);
    SELECT string_agg(c.oid::regclass::text, ', ') INTO unlogged
    FROM pg_partition_tree(tbl) t JOIN pg_class c ON c.oid = t.relid
    WHERE t.isleaf AND (c.relkind = 'f' OR c.relpersistence <> 'p');
    IF unlogged IS NOT NULL THEN
        RAISE WARNING 'fanwire_watch: changes of these partitions are not told, being foreign or unlogged tables: %',
            unlogged;
    END IF;
    IF before <> 'd' AND EXISTS (SELECT FROM pg_class WHERE oid = tbl AND relkind = 'p')
       AND NOT EXISTS (SELECT FROM pg_event_trigger
                       WHERE evtname = 'fanwire_partitions' AND evtenabled IN ('O', 'A')) THEN
        RAISE WARNING 'fanwire_watch: a partition that is made or attached from now on lacks the replica identity of %', tbl
            USING HINT = 'Call fanwire_watch() again after that: until then updates of such a partition fail where it has no key, and are not told in full where it has one. Or let a superuser install fanwire''s SQL, which then does it by an event trigger.';
    END IF;
END
$fanwire$;

-- Why the log does not have what the events of a table need; null if it has.
CREATE OR REPLACE FUNCTION fanwire.why_not_logged(tbl regclass, channel text, columns text[])
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
    SELECT CASE WHEN c.relpersistence = 'u' THEN 'it is unlogged'
                WHEN c.relpersistence = 't' THEN 'it is temporary'
                ELSE (SELECT 'the column ' || string_agg(a.attname, ', ' ORDER BY a.attnum) || ' is generated'
                      FROM pg_attribute a
                      WHERE a.attrelid = c.oid AND a.attgenerated <> '' AND NOT a.attisdropped
                        AND a.attname = ANY (fanwire.template_columns(channel) || columns)) END
    FROM pg_class c WHERE c.oid = tbl
$fanwire$;

DROP FUNCTION IF EXISTS public.fanwire_unwatch(regclass); -- an earlier form
CREATE OR REPLACE FUNCTION public.fanwire_unwatch(tbl regclass, channel text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
BEGIN
    PERFORM fanwire.renumber();
    UPDATE fanwire.watching w SET ended = clock_timestamp()
    WHERE w.relation = fanwire_unwatch.tbl AND w.ended IS NULL
      AND (fanwire_unwatch.channel IS NULL OR w.channel = fanwire_unwatch.channel);
    IF NOT FOUND THEN
        RAISE NOTICE 'fanwire_unwatch: % is not watched%', tbl,
            coalesce(' as ' || to_json(channel)::text, '');
    ELSIF NOT EXISTS (SELECT FROM fanwire.watching w
                      WHERE w.relation = fanwire_unwatch.tbl AND w.ended IS NULL) THEN
        EXECUTE format('ALTER PUBLICATION fanwire DROP TABLE ONLY %s', tbl);
        PERFORM fanwire.restore_identities();
    END IF;
END
$fanwire$;

CREATE OR REPLACE FUNCTION public.fanwire_watch(
    tbl regclass, channel text, columns text[] DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    name text := fanwire.check_watch(tbl, channel, columns);
    keys text[];
    why text := fanwire.why_not_logged(tbl, channel, columns);
    other regclass;
BEGIN
    IF why IS NOT NULL THEN
        RAISE EXCEPTION 'fanwire_watch: % cannot be watched as %: %, and the write-ahead log has nothing of that',
            name, to_json(channel), why
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Name columns that are not generated, of a table that is logged; or use another mode: fanwire sql postgres --mode outbox';
    END IF;
    SELECT p.relation INTO other FROM fanwire.published p
    WHERE p.relation <> tbl AND (p.relation IN (SELECT relid FROM pg_partition_ancestors(tbl))
                                 OR tbl IN (SELECT relid FROM pg_partition_ancestors(p.relation)));
    IF other IS NOT NULL THEN
        RAISE EXCEPTION 'fanwire_watch: % cannot be watched beside %: in mode wal changes of a partition are those of one table',
            tbl, other
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('Watch the one or the other: SELECT fanwire_unwatch(%L);', other);
    END IF;
    SELECT array_agg(a.attname::text ORDER BY a.attnum) INTO keys
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = tbl AND i.indisprimary;

    PERFORM fanwire.renumber();
    DELETE FROM fanwire.watching w
    WHERE w.ended < now() - interval '30 days';
    PERFORM fanwire.make_identity(tbl, channel);
    IF NOT EXISTS (SELECT FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
                   WHERE p.pubname = 'fanwire' AND r.prrelid = tbl) THEN
        UPDATE fanwire.watching w SET ended = clock_timestamp()
        WHERE w.relation = fanwire_watch.tbl AND w.ended IS NULL;
        EXECUTE format('ALTER PUBLICATION fanwire ADD TABLE ONLY %s', tbl);
    END IF;
    INSERT INTO fanwire.watching AS w (relation, tbl, channel, columns, keys)
    VALUES (tbl, tbl, channel, columns, keys)
    ON CONFLICT ON CONSTRAINT watching_pkey DO UPDATE
    SET columns = excluded.columns, keys = excluded.keys, ended = NULL;
END
$fanwire$;

-- What was watched by triggers, in another mode, goes on by the publication.
DO $fanwire$
DECLARE
    other record;
    why text := '';
    ends text := '';
BEGIN
    IF to_regclass('fanwire.watch_triggers') IS NULL THEN
        RETURN;
    END IF;
    FOR other IN EXECUTE
        'SELECT w.tbl, w.channel, coalesce(fanwire.why_not_logged(w.tbl, w.channel, w.columns), '
        '    ''it has no column '' || fanwire.lacking_columns(w.tbl, w.channel, w.columns), '
        '    (SELECT ''it is a partition of '' || min(o.tbl::text) || '', which is watched, too'' '
        '     FROM fanwire.watch_triggers o WHERE o.for_rows AND o.tbl <> w.tbl '
        '     AND o.tbl IN (SELECT relid FROM pg_catalog.pg_partition_ancestors(w.tbl)))) AS why '
        'FROM fanwire.watch_triggers w WHERE w.for_rows ORDER BY w.tbl::text, w.channel'
    LOOP
        CONTINUE WHEN other.why IS NULL;
        why := why || format(E'\n%s, watched as %s: %s', other.tbl, to_json(other.channel), other.why);
        ends := ends || format(' SELECT fanwire_unwatch(%L, %L);', other.tbl, other.channel);
    END LOOP;
    IF why <> '' THEN
        RAISE EXCEPTION 'mode wal cannot tell all that is watched:%', why
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'End these, then install again:' || ends;
    END IF;
    FOR other IN EXECUTE 'SELECT tbl, channel, columns FROM fanwire.watch_triggers WHERE for_rows'
    LOOP
        PERFORM public.fanwire_watch(other.tbl, other.channel, other.columns);
    END LOOP;
    DROP VIEW fanwire.watch_triggers;
    DROP FUNCTION IF EXISTS fanwire.on_change() CASCADE; -- with its triggers
    DROP FUNCTION IF EXISTS fanwire.drop_triggers(regclass, text),
        fanwire.trigger_argument(bytea, integer), fanwire.publish_row(text, jsonb),
        fanwire.columns_of(jsonb, text[]), fanwire.channel_of(text, jsonb),
        fanwire.is_channel(text), fanwire.is_plain(regclass),
        fanwire.columns_singly(anyelement, text[]), fanwire.warn_of_columns(regclass, text, jsonb, text[]);
END
$fanwire$;

COMMENT ON FUNCTION public.fanwire_watch(regclass, text, text[]) IS
    'Publishes each change of the table''s rows to the channel that the template makes of the row';
COMMENT ON FUNCTION public.fanwire_unwatch(regclass, text) IS
    'Ends what fanwire_watch() began: one template of the table, or all';
GRANT SELECT ON fanwire.watching, fanwire.watched, fanwire.published TO PUBLIC;
GRANT EXECUTE ON FUNCTION fanwire.renumber(), fanwire.unfit_partitions(regclass),
    fanwire.change_identity(regclass, text), fanwire.fit_partitions(regclass),
    fanwire.restore_identities(), fanwire.make_identity(regclass, text),
    fanwire.why_not_logged(regclass, text, text[]), public.fanwire_watch(regclass, text, text[]),
    public.fanwire_unwatch(regclass, text) TO PUBLIC;
