-- Removes everything that "fanwire sql postgres" has installed, in any mode. Run it again at will.
--
-- Replication slots that "fanwire serve --node NAME" has made keep WAL until they are dropped. End the
-- server, then:  fanwire doctor --drop-slot fanwire_NAME "$DATABASE_URL"
--           or:  SELECT pg_drop_replication_slot('fanwire_NAME');

-- The replica identity that fanwire_watch() has changed in wal mode.
DO $fanwire$
DECLARE
    changed record;
BEGIN
    IF to_regclass('fanwire.watching') IS NOT NULL THEN
        FOR changed IN EXECUTE 'SELECT DISTINCT ON (r.prrelid) r.prrelid::regclass AS tbl, w.identity '
            'FROM fanwire.watching w JOIN pg_catalog.pg_publication_rel r '
            'ON r.prrelid = coalesce((to_jsonb(w) ->> ''tbl'')::regclass, w.relation) ' -- an earlier form
            'JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid AND p.pubname = ''fanwire'' '
            'WHERE w.identity IS NOT NULL'
        LOOP
            PERFORM fanwire.set_identity(changed.tbl, changed.identity);
        END LOOP;
    END IF;
END
$fanwire$;
SELECT pg_logical_emit_message(true, 'fanwire.installed', ''); -- who reads in mode wal looks again
DROP PUBLICATION IF EXISTS fanwire;
DROP FUNCTION IF EXISTS public.fanwire_publish(text, text, text, text);
DROP FUNCTION IF EXISTS public.fanwire_publish(text, jsonb, text, text);
DROP FUNCTION IF EXISTS public.fanwire_publish(text, json, text, text);
DROP FUNCTION IF EXISTS public.fanwire_status();
DROP FUNCTION IF EXISTS public.fanwire_prune(interval);
DROP FUNCTION IF EXISTS public.fanwire_watch(regclass, text, text[]);
DROP FUNCTION IF EXISTS public.fanwire_unwatch(regclass, text);
DROP FUNCTION IF EXISTS public.fanwire_unwatch(regclass); -- an earlier form
-- In the order in which a reader takes them: it may be at it.
DO $fanwire$
BEGIN
    IF to_regclass('fanwire.outbox_state') IS NOT NULL AND to_regclass('fanwire.outbox') IS NOT NULL THEN
        LOCK TABLE fanwire.outbox_state, fanwire.outbox IN ACCESS EXCLUSIVE MODE;
    END IF;
END
$fanwire$;
-- With it go the triggers of watched tables.
DROP SCHEMA IF EXISTS fanwire CASCADE;
