"""Word lists of the seeded world: genres, countries, names and what texts are made of."""

from __future__ import annotations

GENRES: tuple[str, ...] = (
    "adventure",
    "animation",
    "biography",
    "comedy",
    "crime",
    "documentary",
    "drama",
    "family",
    "fantasy",
    "history",
    "horror",
    "musical",
    "mystery",
    "romance",
    "science fiction",
    "western",
)

GENRE_WORDS: tuple[tuple[str, ...], ...] = (
    ("expedition", "treasure", "voyage", "jungle", "daring", "map"),
    ("drawn", "colourful", "talking", "whimsical", "toys", "creatures"),
    ("life", "portrait", "ambition", "letters", "career", "fame"),
    ("hilarious", "misunderstanding", "awkward", "wedding", "prank", "neighbours"),
    ("heist", "detective", "gangster", "robbery", "corrupt", "getaway"),
    ("footage", "interviews", "archive", "witnesses", "investigation", "truth"),
    ("grief", "marriage", "secrets", "reconciliation", "quiet", "regret"),
    ("puppy", "holidays", "grandparents", "playful", "school", "together"),
    ("dragon", "sorcerer", "kingdom", "prophecy", "enchanted", "quest"),
    ("empire", "revolution", "court", "soldiers", "century", "crown"),
    ("haunted", "nightmare", "curse", "scream", "cellar", "possessed"),
    ("singer", "dance", "orchestra", "stage", "chorus", "melody"),
    ("clue", "missing", "alibi", "inspector", "puzzle", "vanished"),
    ("lovers", "kiss", "longing", "summer", "heartbreak", "promise"),
    ("spaceship", "robot", "galaxy", "android", "colony", "future"),
    ("sheriff", "outlaw", "saloon", "frontier", "cattle", "duel"),
)

COUNTRIES: tuple[str, ...] = (
    "Argentina", "Australia", "Brazil", "Canada", "Denmark", "Egypt", "France", "Germany", "Ghana", "India",
    "Iran", "Ireland", "Italy", "Japan", "Kenya", "Korea", "Mexico", "Morocco", "Nigeria", "Poland",
    "Portugal", "Spain", "Sweden", "Turkey",
)  # fmt: skip

THEMES: tuple[str, ...] = (
    "apples", "archers", "avalanche", "ballet", "bees", "bicycles", "boxing", "bridges", "cameras", "candles",
    "canyons", "carnival", "castles", "cathedrals", "chess", "circus", "clocks", "comets", "cooking", "coral",
    "desert", "diamonds", "diving", "doctors", "elephants", "embassy", "eclipse", "falcons", "farming", "ferries",
    "fencing", "fishing", "floods", "football", "forgery", "foxes", "gardens", "ghosts", "glaciers", "guitars",
    "harbours", "honey", "horses", "hotels", "hunger", "hurricanes", "insects", "islands", "jazz", "journalists",
    "kites", "labyrinths", "lakes", "lanterns", "libraries", "lighthouses", "lions", "magnets", "marathons", "markets",
    "masks", "medicine", "memory", "merchants", "mines", "mirrors", "monks", "moon", "mountains", "museums",
    "mushrooms", "nomads", "nurses", "oceans", "olives", "opera", "orchards", "orphans", "owls", "painters",
    "pearls", "photographs", "pianos", "pilgrims", "pirates", "poets", "poison", "prisons", "professors", "railways",
    "rain", "ravens", "rivers", "robots", "ruins", "sailors", "salt", "satellites", "sculptors", "shadows",
    "shepherds", "silk", "sisters", "skating", "snow", "spies", "storms", "submarines", "sugar", "swimming",
    "tailors", "tango", "taxis", "tea", "theatre", "tigers", "trains", "tunnels", "twins", "umbrellas",
    "violins", "volcanoes", "whales", "windmills", "wine", "winter", "witches", "wolves",
)  # fmt: skip

ADJECTIVES: tuple[str, ...] = (
    "Amber", "Ancient", "Bitter", "Blue", "Borrowed", "Brave", "Bright", "Broken", "Burning", "Crimson",
    "Crooked", "Distant", "Drowning", "Electric", "Empty", "Endless", "Fading", "Fearless", "First", "Forgotten",
    "Fragile", "Frozen", "Gentle", "Gilded", "Golden", "Green", "Hidden", "Hollow", "Hungry", "Idle",
    "Iron", "Last", "Lonely", "Long", "Lost", "Lucky", "Midnight", "Nameless", "Northern", "Open",
    "Pale", "Paper", "Patient", "Perfect", "Quiet", "Red", "Restless", "Rising", "Sacred", "Scarlet",
    "Second", "Secret", "Seventh", "Silent", "Silver", "Sleeping", "Small", "Southern", "Stolen", "Strange",
    "Sunken", "Velvet", "Wandering", "Wild",
)  # fmt: skip

NOUNS: tuple[str, ...] = (
    "Afternoon", "Alphabet", "Anchor", "Answer", "Arrow", "Autumn", "Balcony", "Bell", "Border", "Bread",
    "Cage", "Cartographer", "Chamber", "Choice", "City", "Crossing", "Daughter", "Debt", "Door", "Dream",
    "Echo", "Envelope", "Evening", "Feather", "Fire", "Flight", "Garden", "Gate", "Guest", "Hour",
    "House", "Hunter", "Inheritance", "Journey", "Key", "Lake", "Language", "Letter", "Lullaby", "Machine",
    "Messenger", "Mile", "Morning", "Neighbour", "Night", "Oath", "Orchard", "Passenger", "Promise", "Question",
    "Room", "Season", "Shore", "Sky", "Song", "Staircase", "Stone", "Stranger", "Street", "Summer",
    "Tower", "Valley", "Visitor", "Window",
)  # fmt: skip

MAKER_FIRST: tuple[str, ...] = (
    "Albatross", "Basalt", "Cedar", "Copper", "Dogwood", "Ember", "Fjord", "Gable", "Harvest", "Indigo",
    "Juniper", "Kestrel", "Linden", "Marble", "Nimbus", "Orchid", "Pelican", "Quartz", "Rowan", "Saffron",
    "Tamarind", "Umber", "Vesper", "Willow", "Yarrow", "Zephyr",
)  # fmt: skip

MAKER_LAST: tuple[str, ...] = (
    "Pictures", "Studios", "Films", "Productions", "Media", "Workshop", "Brothers", "Works", "Company", "House",
)  # fmt: skip

MAKER_STYLES: tuple[str, ...] = (
    "deadpan", "dreamlike", "elegant", "frenetic", "gritty", "handmade", "intimate", "lavish", "lyrical", "meticulous",
    "minimal", "nostalgic", "opulent", "playful", "raw", "sombre", "sprawling", "stylised", "tender", "tense",
    "theatrical", "understated", "unhurried", "wry",
)  # fmt: skip

RANDOM_TAGS: tuple[str, ...] = (
    "seen twice", "rainy day", "slow burn", "cult", "overlong", "great ending", "gift", "soundtrack",
    "ensemble cast", "plot twist", "black and white", "subtitles", "short", "based on a true story", "bedtime",
    "classic",
)  # fmt: skip
