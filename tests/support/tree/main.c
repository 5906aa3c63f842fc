/* Something to load, and the banner in which a careless build tells who made it. */
const char banner[] = BANNER;
