\set lane random(0, 999)
\set number random(1, 9223372036854775807)
WITH load AS (
  INSERT INTO loads (lane, id, body) VALUES ('lane-' || :lane, 'load-' || :number || '-' || :client_id, jsonb_build_object('id', :number, 'lane', :lane, 'text', :'filling'))
  RETURNING lane, id, body
)
INSERT INTO outbox (lane, id, type, body) SELECT lane, id, 'LoadCreated', body FROM load;
