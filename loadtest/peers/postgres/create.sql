\set lane random(0, 999)
\set number random(1, 9223372036854775807)
WITH load AS (
  INSERT INTO loads (lane, id, body) VALUES ('lane-' || :lane::text, 'load-' || :number::text || '-' || :client_id::text, jsonb_build_object('id', :number::text, 'lane', :lane::text, 'text', :filling::text))
  RETURNING lane, id, body
)
INSERT INTO outbox (lane, id, type, body) SELECT lane, id, 'LoadCreated', body FROM load;
