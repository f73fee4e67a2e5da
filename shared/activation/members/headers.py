"""What the names and the contents of columns say about them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from enum import StrEnum

from activation.domain.identifier import IdentifierType, digest_from


class Role(StrEnum):
    """What a column that is no identifier is for."""

    ATTRIBUTE = "attribute"
    EXPIRES_AT = "expires_at"
    SCORE = "score"
    CONSENT = "consent"
    AD_USER_DATA = "ad_user_data"
    AD_PERSONALIZATION = "ad_personalization"
    LIMITED_DATA_USE = "limited_data_use"
    TCF = "tcf"
    SEGMENTS = "segments"
    IDENTIFIER_TYPE = "identifier_type"
    IDENTIFIER_VALUE = "identifier_value"
    ATTRIBUTES = "attributes"
    HASH_RULE = "hash_rule"
    IGNORE = "ignore"


_NAMES: dict[IdentifierType | Role, str] = {
    IdentifierType.EMAIL: """email mail emailaddress mailaddress useremail customeremail
        emailsha256 hashedemail emailhash sha256email emailadresse mailadresse correo
        correoelectronico email1adresse courriel adresseemail adressemail eposta indirizzoemail
        emailindirizzo enderecodeemail adreceemail adresemail emailadres epost sahkoposti""",
    IdentifierType.PHONE: """phone phonenumber phoneno mobile mobilephone mobilenumber cell
        cellphone telephone telephonenumber tel phonesha256 hashedphone phonehash sha256phone
        telefon telefonnummer handy handynummer mobil mobilnummer mobiltelefon telefono
        numerodetelefono movil celular telefonomovil numerodetelephone telephoneportable portable
        numerotelefono cellulare telefone telemovel telefoonnummer telefoon gsm puhelin msisdn""",
    IdentifierType.MAID: """maid idfa gaid aaid adid advertisingid mobileadid madid
        mobileadvertisingid mobileadvertiserid deviceid googleadid appleidfa""",
    IdentifierType.UID2: "uid2 rawuid2 uid2raw unifiedid2 unifiedid",
    IdentifierType.RAMP_ID: "rampid liverampid idl identitylink liveramp",
    IdentifierType.COOKIE_ID: "cookieid cookie tdid cookieidentifier",
    IdentifierType.CUSTOMER_ID: """customerid customernumber customerno custid externalid
        externalcustomerid crmid clientid userid memberid loyaltyid kundennummer kundenid
        kundennr idcliente clienteid numerocliente numeroclient idclient clientnumber
        codicecliente klantnummer klantid""",
    Role.EXPIRES_AT: """expiresat expires expiry expirydate expirationdate expiration validuntil
        expireson gueltigbis ablaufdatum validohasta valablejusquau""",
    Role.SCORE: "score scoring punktzahl puntuacion punteggio",
    Role.CONSENT: """consent consentstatus adconsent marketingconsent optin einwilligung
        consentement consentimiento consenso""",
    Role.AD_USER_DATA: "aduserdata aduserdataconsent consentaduserdata",
    Role.AD_PERSONALIZATION: """adpersonalization adpersonalisation adpersonalizationconsent
        consentadpersonalization""",
    Role.LIMITED_DATA_USE: "limiteddatause ldu dataprocessingoptions",
    Role.TCF: """tcf tcfstring tcstring tcfconsent tcfconsentstring iabtcftcstring iabtcf
        gdprconsent""",
    Role.SEGMENTS: "segment segments segmentname segmentnames label labels",
    Role.IDENTIFIER_TYPE: "identifiertype idtype typeofidentifier",
    Role.IDENTIFIER_VALUE: "identifiervalue identifier idvalue",
    Role.HASH_RULE: "hashrule",
    Role.ATTRIBUTES: "attributes attribute attributesjson customattributes",
}
_MEANING = {name: meaning for meaning, names in _NAMES.items() for name in names.split()}

MOSTLY = 0.6
"""Share of the sampled cells that must look alike before contents decide."""

_LOOKS = {
    IdentifierType.EMAIL: re.compile(r"\s*[^@\s\"]+@[^@\s\"]+\.[^@\s\".]+\s*"),
    IdentifierType.PHONE: re.compile(r"\s*(?:\+|00)[1-9][0-9 ().\-/]{6,20}"),
    IdentifierType.MAID: re.compile(r"\s*[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\s*"),
}


_REFUSALS = (
    *("optout", "optedout", "unsubscri", "donotsell", "donotcontact", "donotemail", "donotcall"),
    *("donottrack", "nomarketing", "withdrawn", "werbesperre", "werbewiderspruch", "abgemeldet"),
    *("desabonn", "desinscri", "bajapublicidad", "disiscri"),
)
"""Parts of names of columns whose yes is a no."""


def meaning_of(header: str) -> IdentifierType | Role | None:
    """What a column name stands for, in the spellings we know; `email_2` is an `email`."""
    bare = _bare(header)
    return _MEANING.get(bare) or _MEANING.get(bare.rstrip("0123456789"))


def speaks_of_refusal(header: str) -> bool:
    """Whether a column may say who does not want to be contacted, as `opt_out`."""
    bare = _bare(header)
    return any(word in bare for word in _REFUSALS)


def _bare(header: str) -> str:
    decomposed = unicodedata.normalize("NFKD", header.casefold())
    return "".join(c for c in decomposed if c.isalnum())


def looks_like(cells: Sequence[str]) -> IdentifierType | None:
    """The identifier type that most non-empty cells look like; None for everything else."""
    filled = [cell for cell in cells if cell and not cell.isspace()]
    for kind, look in _LOOKS.items():
        if filled and sum(1 for c in filled if look.fullmatch(c)) >= MOSTLY * len(filled):
            return kind
    return None


def looks_hashed(cells: Sequence[str]) -> bool:
    """Whether most non-empty cells are SHA-256 digests, as hex or base64."""
    filled = [cell for cell in cells if cell and not cell.isspace()]
    hashed = sum(1 for cell in filled if digest_from(cell) is not None)
    return bool(filled) and hashed >= MOSTLY * len(filled)
