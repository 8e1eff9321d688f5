-- Removes everything that "fanwire sql postgres" has installed, in any mode. Run it again at will.
--
-- Replication slots that "fanwire serve --node NAME" has made keep WAL until they are dropped. End the
-- server, then:  fanwire doctor --drop-slot fanwire_NAME "$DATABASE_URL"
--           or:  SELECT pg_drop_replication_slot('fanwire_NAME');

SELECT pg_logical_emit_message(true, 'fanwire.installed', ''); -- who reads in mode wal looks again
DROP PUBLICATION IF EXISTS fanwire;
-- Nothing is watched any more: what fanwire_watch() has changed of tables is set back.
DO $fanwire$
BEGIN
    IF to_regprocedure('fanwire.restore_identities()') IS NOT NULL THEN
        PERFORM fanwire.restore_identities();
    END IF;
END
$fanwire$;
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
