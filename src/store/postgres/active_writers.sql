select count(*) from ledger where updated_at > now() - interval '1 minute'
