-- The tax of documents in the seller's own currency, and where a sale was taxed and why.

-- taxes: how many units of a currency one euro was, on the days on which that was published.
CREATE TABLE exchange_rate (
    currency    text COLLATE "C" NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    day         date NOT NULL,
    rate        numeric(20, 10) NOT NULL CHECK (rate > 0 AND rate < 'NaN'),
    source      text NOT NULL,
    imported_at timestamptz NOT NULL,
    PRIMARY KEY (currency, day)
);
-- The tax file also says in which currency the seller accounts for tax, whether FatturaPA is
-- issued, and how many pieces of evidence must agree where a consumer is.
ALTER TABLE tax_state
    ADD COLUMN currency text COLLATE "C" CHECK (currency ~ '^[a-z]{3}$'),
    ADD COLUMN fatturapa boolean NOT NULL DEFAULT false,
    ADD COLUMN evidence_min bigint NOT NULL DEFAULT 1 CHECK (evidence_min BETWEEN 1 AND 2);

-- What an invoice in another currency was converted at; its credit notes are converted at the same.
-- Rates are units of the invoice's (foreign) and of the seller's (home) currency for one euro.
CREATE TABLE invoice_exchange (
    customer_id  uuid NOT NULL,
    invoice_id   uuid NOT NULL,
    currency     text COLLATE "C" NOT NULL CHECK (currency ~ '^[a-z]{3}$'), -- the seller's
    day          date NOT NULL,
    foreign_rate numeric(20, 10) NOT NULL CHECK (foreign_rate > 0 AND foreign_rate < 'NaN'),
    home_rate    numeric(20, 10) NOT NULL CHECK (home_rate > 0 AND home_rate < 'NaN'),
    source       text NOT NULL,
    PRIMARY KEY (customer_id, invoice_id),
    FOREIGN KEY (customer_id, invoice_id) REFERENCES invoice DEFERRABLE INITIALLY DEFERRED
);
-- Net and tax of a group in that currency; NULL: the document is in it, or states nothing.
ALTER TABLE invoice_tax
    ADD COLUMN stated_net bigint CHECK (stated_net >= 0),
    ADD COLUMN stated_tax bigint CHECK (stated_tax >= 0);
ALTER TABLE credit_note_tax ADD COLUMN stated_net bigint, ADD COLUMN stated_tax bigint;

-- Where an invoice was taxed (NULL: nowhere), and the evidence of the customer's place: a row for
-- each taxed invoice to a customer abroad, and for each whose customer has recorded evidence.
CREATE TABLE invoice_place (
    customer_id uuid NOT NULL,
    invoice_id  uuid NOT NULL,
    country     text COLLATE "C" CHECK (country ~ '^[A-Z]{2}$'),
    evidence    jsonb NOT NULL,
    PRIMARY KEY (customer_id, invoice_id),
    FOREIGN KEY (customer_id, invoice_id) REFERENCES invoice DEFERRABLE INITIALLY DEFERRED
);
-- What the seller saw of where a customer is: the last of each kind.
CREATE TABLE tax_evidence (
    customer_id uuid NOT NULL REFERENCES customer,
    kind        text COLLATE "C" NOT NULL
        CHECK (kind IN ('card', 'ip', 'bank', 'sim', 'landline', 'other')),
    country     text COLLATE "C" NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    note        text,
    seen_at     timestamptz NOT NULL,
    PRIMARY KEY (customer_id, kind)
);
