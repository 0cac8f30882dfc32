"""Texts with personal data, labelled, and texts that only look like it; every number is invented or a published example."""

_TEXTS = {
    "email": (
        "Contact john.doe@example.com for the full video", "write to Anna_K+clips@mail.example.co.uk today",
        "business: booking@my-band.example.org | tour 2019", "(first.last@sub.domain.example.io)",
        "mailto:o'neil@example.ie is my address", "E-mail: 007agent%spy@example.net!",
        "jos\u00e9@example.es sings a song", "name (at) example (dot) com writes it this way",
    ),
    "email email": ("info@xn--mller-kva.example and sales@example.de",),
    "phone": (
        "Call +1 212-555-0187 to book this DJ", "call us at (415) 555-0132 for a free quote",
        "Phone 020 7946 0958, ask for Sue", "whatsapp +44 7700 900123 for prices", "text me 3105550176",
        "Kontakt: +49 30 901820", "+33 1 42 68 53 00 reservations of the restaurant",
        "best plumber in town 646-555-0199", "our number is 1-800-555-0199, operators wait",
        "dial 0044 20 7946 0018 from abroad", "+91 98765 43210 wedding videos", "hotline: 212.555.0142",
    ),
    "phone phone": ("tel. 0161 496 0000 or 0161 496 0001",),
    "card": (
        "pay with 4111 1111 1111 1111 exp 10/27", "Mastercard 5555-5555-5555-4444 on the screen",
        "my amex 378282246310005", "card 6011111111111117 was shown in the stream", "diners 30569309025904",
        "2223003122003222 is a new range of numbers",
    ),
    "card card": ("JCB 3530111333300000 and visa 4012888888881881",),
    "iban": (
        "donate to GB82 WEST 1234 5698 7654 32 THANKS", "IBAN DE89370400440532013000 for donations",
        "FR14 2004 1010 0505 0001 3M02 606", "account NL91ABNA0417164300, please help the dog",
        "send it to CH93 0076 2011 6238 5295 7", "ES9121000418450200051332 - cat shelter",
    ),
    "ip": (
        "server runs on 8.8.8.8 join now", "minecraft ip: 85.214.132.117:25565", "join 2001:4860:4860::8888 tonight",
        "connect to 94.130.57.12, password on discord", "[2a01:4f8:c17:b0f::2] is up again",
    ),
    "email phone": ("mail ann@example.com or call (212) 555-0123",),
    "iban email": ("IBAN BE68539007547034, mail help@example.org",),
    "": (
        "A man in a dark suit walks between parked taxis on a city street", "1920 1080 60 fps 2019 2020",
        "4k 3840x2160 stock footage 0012345678", "VID_20190412_153045 street at night", "clip 1234567890123 final",
        "4111 1111 1111 1112 views of a cat", "episode 12-24-36 of season 2, 10:30-11:45",
        "firmware version 10.4.2.1 unboxing", "update v8.8.4.4 adds a new map", "router at 192.168.0.1 setup guide",
        "127.0.0.1 is where the heart is", "score 21-19 21-15 in the final of 2016",
        "population of 7 800 000 000 people", "born 04.07.1985, died 12.11.2001",
        "follow @user_name on the usual site", "meet me @ the park at 5.30", "a@b is no address",
        "std::vector explained in 12:30:45", "chapter 3:16:20 of the talk", "ISBN 978-3-16-148410-0 book review",
        "tracking 9400110200881234567890 parcel opening", "GB is 82 west of somewhere in 1234 steps",
        "DE12 3456 7890 1234 5678 90 on a licence plate game", "flight BA2490 lands on runway 27L",
        "IMG-20200101-WA0001 family dinner", "order 555 0123 pieces of lego", "pi is 3.14159265358979323846",
        "lat 40.712776, lon -74.005974 drone flight", "$1,000,000,000 jackpot drawing", "24 7 365 radio stream",
        "GPS 52.5200.13.4050 over Berlin", "MAC 00:1A:2B:3C:4D:5E of the camera",
        "UPC 0 36000 29145 2 barcode scanner", "unix time 1571234567 passes", "recorded 2021-03-04 05:06:07.890",
        "a red ball and a small green box in the forest", "price is 19.99 from 29.99 until 31.12.2020",
        "sunset 2145551234 without a title", "render 1234567812345670 of a robot", "plus +5 -3 +12 in the standings",
        "E. coli 10.1101.2020.04.14 preprint talk", "version 8.8.8.8 of the game is out",
        "train 1104 on track 3 at 14 23 55",
    ),
}  # fmt: skip
LABELLED = tuple((text, entities.split()) for entities, texts in _TEXTS.items() for text in texts)
"""(text, entities in it)."""
