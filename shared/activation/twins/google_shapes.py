"""The JSON of the Data Manager API v1, as its protocol buffers define it."""

from __future__ import annotations

from typing import Any, Final

from activation.twins.shapes import ANY, Choice, Many

ACCOUNT_TYPE = Choice(
    {
        "GOOGLE_ADS": 1,
        "DISPLAY_VIDEO_PARTNER": 2,
        "DISPLAY_VIDEO_ADVERTISER": 3,
        "DATA_PARTNER": 4,
        "GOOGLE_ANALYTICS_PROPERTY": 5,
        "GOOGLE_AD_MANAGER_AUDIENCE_LINK": 6,
        "FLOODLIGHT_CONFIG": 7,
        "GOOGLE_AD_MANAGER": 8,
    }
)
ENCODING = Choice({"HEX": 1, "BASE64": 2})
TERMS = Choice({"TERMS_OF_SERVICE_STATUS_UNSPECIFIED": 0, "ACCEPTED": 1, "REJECTED": 2})
KEY_TYPE = Choice(
    {"CONTACT_ID": 1, "MOBILE_ID": 2, "USER_ID": 3, "PAIR_ID": 4, "PSEUDONYMOUS_ID": 5}
)
CONSENT_STATUS = Choice(
    {"CONSENT_STATUS_UNSPECIFIED": 0, "CONSENT_GRANTED": 1, "CONSENT_DENIED": 2}
)
_SOURCE = Choice(
    {
        "DATA_SOURCE_TYPE_UNSPECIFIED": 0,
        "DATA_SOURCE_TYPE_FIRST_PARTY": 1,
        "DATA_SOURCE_TYPE_THIRD_PARTY_CREDIT_BUREAU": 2,
        "DATA_SOURCE_TYPE_THIRD_PARTY_VOTER_FILE": 3,
        "DATA_SOURCE_TYPE_THIRD_PARTY_PARTNER_DATA": 4,
    }
)
_ACCOUNT = {"accountType": ACCOUNT_TYPE, "accountId": str, "product": ANY}
_CONSENT = {"adUserData": CONSENT_STATUS, "adPersonalization": CONSENT_STATUS}
_ADDRESS = {
    "givenName": str,
    "familyName": str,
    "regionCode": str,
    "postalCode": str,
    "addressLine": str,
    "city": str,
    "administrativeArea": str,
}
_USER_DATA = {
    "userIdentifiers": Many({"emailAddress": str, "phoneNumber": str, "address": _ADDRESS})
}
DATA_FIELDS = {
    "userData": "CONTACT_ID",
    "mobileData": "MOBILE_ID",
    "userIdData": "USER_ID",
}
"""Data of a member that the twin can hold, and the kind of list that takes it."""

_MEMBER = {
    "destinationReferences": Many(str),
    "consent": _CONSENT,
    "userData": _USER_DATA,
    "mobileData": {"mobileIds": Many(str)},
    "userIdData": {"userId": str},
}
_DESTINATION = {
    "reference": str,
    "loginAccount": _ACCOUNT,
    "linkedAccount": _ACCOUNT,
    "operatingAccount": _ACCOUNT,
    "productDestinationId": str,
}
REMOVE: Final[dict[str, Any]] = {
    "destinations": Many(_DESTINATION),
    "audienceMembers": Many(_MEMBER),
    "encoding": ENCODING,
    "validateOnly": bool,
}
REMOVE_ALL: Final[dict[str, Any]] = {
    "destinations": Many(_DESTINATION),
    "removeAsOfTime": str,
    "validateOnly": bool,
}
INGEST: Final[dict[str, Any]] = {
    **REMOVE,
    "consent": _CONSENT,
    "termsOfService": {"customerMatchTermsOfServiceStatus": TERMS},
}
USER_LIST: Final[dict[str, Any]] = {
    "displayName": str,
    "description": str,
    "integrationCode": str,
    "membershipDuration": str,
    "ingestedUserListInfo": {
        "uploadKeyTypes": Many(KEY_TYPE),
        "contactIdInfo": {"dataSourceType": _SOURCE},
        "mobileIdInfo": {
            "dataSourceType": _SOURCE,
            "keySpace": Choice({"IOS": 1, "ANDROID": 2}),
            "appId": str,
        },
        "userIdInfo": {"dataSourceType": _SOURCE},
    },
}
