select count(*) from ledger where live and updated_at > now() - interval '1 minute'
