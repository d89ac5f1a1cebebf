"""Which test answers each attack of the shared list that is about metering, quotas or the API.

The rows of `test_attacks.py` are registered there by number. What has no test says what is missing,
and is skipped by name.
"""

from typing import Final

HERE: Final = "integration/test_attacks.py"
ONCE: Final = "integration/test_once.py"
QUOTA: Final = "integration/test_quota_decisions.py"
TENANCY: Final = "integration/test_api_tenancy.py"
GATE: Final = "integration/test_gate.py"
LIMITS: Final = "integration/test_rate_limits.py"
RUN: Final = "integration/test_billing_run.py"
WINDOWS: Final = "integration/test_usage_windows.py"
MONEY: Final = "integration/test_money_attacks.py"
GRANTS: Final = "integration/test_grant_api.py"
PAYMENTS: Final = "integration/test_payments.py"

BY_NUMBER: Final = frozenset(
    "QTY-01 QTY-02 QTY-03 QTY-04 QTY-07 QTY-09 QTY-10 QTY-14 QTY-15 QTY-17 QTY-19"
    " TIME-01 TIME-02 TIME-04 TIME-07 TIME-09 IDEM-12 QUOTA-02 DOS-03 DOS-04 DOS-06 DOS-07 DOS-10"
    " TEN-03 TEN-07 TEN-08 TEN-11 TEN-16 MASS-01 MASS-02 MASS-03 MASS-04 KEY-03 KEY-04 KEY-08"
    " INJ-01 INJ-02 INJ-03 INJ-12 INJ-14 INJ-17"
    " PAN-01 PAN-02 PAN-07 PAN-11 PAN-12 PAN-13 WEB-05".split()
)

# files that hold tests whose names begin with the row's own number: `test_quota_01_...`
NUMBERED: Final[dict[str, tuple[str, ...]]] = {
    "QTY-11": ("integration/test_ingest.py",),
    "QTY-12": ("integration/test_ingest.py",),
    "QUOTA-01": (QUOTA, GATE),
    "QUOTA-04": (QUOTA, "integration/test_gate_settling.py"),
    "QUOTA-05": (QUOTA, GATE),
    "QUOTA-06": (LIMITS,),
    "QUOTA-08": (LIMITS, "unit/test_limiting.py"),
    "QUOTA-10": (QUOTA,),
    "IDEM-01": (ONCE,),
    "IDEM-02": (ONCE,),
    "IDEM-03": (ONCE,),
    "IDEM-04": (ONCE,),
    "IDEM-05": (ONCE,),
    "IDEM-07": (ONCE,),
    "IDEM-08": (ONCE,),
    "IDEM-10": (ONCE,),
    "TEN-01": (TENANCY,),
    "TEN-02": (TENANCY,),
    "KEY-01": ("integration/test_api.py", "integration/test_identity_keys.py"),
    "KEY-02": ("integration/test_identity_keys.py", "integration/test_cli_customer_apikey.py"),
    "DOS-01": ("integration/test_api.py",),
    "DOS-02": ("integration/test_api.py",),
    "WEB-08": ("integration/test_api.py",),
    "MONEY-05": (MONEY,),
    "MONEY-06": ("integration/test_coupons.py", MONEY),
    "MONEY-10": (MONEY,),
    "MONEY-12": ("unit/test_taxing.py",),
    "MONEY-13": (MONEY,),
    "MONEY-14": (MONEY,),
    "MONEY-15": (MONEY,),
    "MONEY-17": (MONEY,),
    "MONEY-18": (MONEY,),
    "MONEY-22": (MONEY,),
    "MONEY-24": (MONEY,),
    "MONEY-26": (MONEY,),
    "MONEY-34": (GATE,),
    "TAX-01": ("integration/test_taxes.py", "integration/test_location_evidence.py"),
    "TAX-03": ("integration/test_taxes.py", "integration/test_location_evidence.py"),
    "TAX-04": ("integration/test_taxes.py",),
    "TAX-06": ("integration/test_documents_written.py",),
    "TAX-07": ("unit/test_e_invoices.py",),
}
# rows that tests with names of their own answer
NAMED: Final[dict[str, tuple[str, ...]]] = {
    "TIME-03": (
        f"{RUN}::test_late_usage_comes_on_the_next_boundary_with_its_reason",
        "integration/test_closed_periods.py::test_late_usage_opens_its_period_again",
    ),
    "TIME-08": (
        f"{WINDOWS}::test_windows_follow_the_zone_across_a_change_of_clocks",
        "property/test_kernel_periods.py::test_periods_meet_without_gap_or_overlap",
    ),
    "MONEY-29": (
        f"{PAYMENTS}::test_a_method_with_a_hard_decline_is_never_charged_again",
        f"{PAYMENTS}::test_declines_follow_the_schedule_to_unpaid_and_a_new_method_recovers",
    ),
    "MONEY-32": (
        f"{RUN}::test_late_usage_is_priced_in_the_tiers_of_its_own_period",
        "integration/test_ingest.py::test_time_01_only_an_import_may_bring_old_events",
    ),
    "MONEY-36": (f"{GRANTS}::test_only_the_seller_grants_and_a_customer_reads_its_own_alone",),
    "TEN-05": (f"{TENANCY}::test_another_customer_s_invoice_and_pdf_are_not_there",),
    "INJ-05": ("integration/test_usage_csv.py::test_cells_are_neutral_text_and_plain_numbers",),
    "INJ-07": ("unit/test_documents.py::test_what_a_customer_typed_is_shown_as_typed",),
}

_GATEWAYS = "refunds, disputes and a provider's own totals come with the gateways"
_USERS = "users, sessions and roles come with the portal and the admin page"
LATER: Final[dict[str, str]] = {
    "MONEY-01": _GATEWAYS,
    "MONEY-02": _GATEWAYS,
    "MONEY-03": _GATEWAYS,
    "MONEY-04": _GATEWAYS,
    "MONEY-19": "nobody signs up here: the seller says who gets a trial",
    "MONEY-21": "erasure comes with privacy",
    "MONEY-30": "no route takes a card or a token; how often a key may ask is QUOTA-08",
    "MONEY-35": _GATEWAYS,
    "MONEY-37": _GATEWAYS,
    "TIME-12": "there is no test clock: a running product reads the machine's, nothing moves it",
    "TEN-09": _USERS,
    "TEN-10": _USERS,
    "TEN-12": "there are no access tokens: a key's scopes never change, revoking is KEY-01",
    "TEN-13": "the database role with row security comes with the portal",
    "TEN-19": _USERS,
    "MASS-06": _USERS,
    "KEY-06": "no secret-scanning partner is connected",
    "INJ-04": "nothing can be filtered by metadata or by the keys of properties",
    "INJ-08": "no document fetches anything; the pages that hold HTML come with the portal",
    "INJ-11": "mails and their templates come with notifications",
    "INJ-19": "nothing is uploaded",
    "INJ-20": "no document of others is read",
    "DOS-12": "rendering by job comes with the documents' own issue",
    "DOS-13": "exports under the GDPR come with privacy",
    "DOS-14": "webhooks of providers come with their gateways",
    "PAN-03": "the server log of PostgreSQL is the deployment's; ours is checked by PAN-01",
    "PAN-08": "mail, exports and traces to search come later; the database is searched by CRY-09",
    "PAN-09": "the gateway of Stripe comes later",
    "PAN-14": "there is no default secret: keys are made at the first start",
    "WEB-01": _USERS,
    "WEB-02": _USERS,
    "WEB-04": _USERS,
    "WEB-06": "pages come with the portal",
    "WEB-07": "no field holds a link",
    "WEB-10": "pages come with the portal",
    "WEB-12": "no cookie is set",
    "WEB-14": "pages come with the portal",
}
AREAS: Final = frozenset("QTY TIME QUOTA IDEM TEN MASS KEY INJ DOS PAN WEB TAX MONEY".split())
